"""The sheet: whole in itself, blind, safe against hostile names, drawn as it says."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audit_rows import DETECTIONS, HOSTILE, PAIRS, mined_store

from wildray import schema
from wildray.config import Config
from wildray.errors import ConfigError, StageError, StoreError
from wildray.packs import decode_jpeg, forget_packs
from wildray.report.audit import draw_sheet
from wildray.report.audit.population import read_population
from wildray.report.audit.record import read_record
from wildray.report.audit.strata import allocate, class_names, draw, stratify
from wildray.store import Store


class Page(HTMLParser):
    """Elements of a page, and the text of its scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("img", "meta", "br", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif "style" not in self.open:
            self.text += data

    def by_id(self, name: str) -> tuple[str, dict[str, str | None]]:
        return next(one for one in self.tags if one[1].get("id") == name)


def drawn(store: Store, out: Path, **settings: Any) -> tuple[Page, dict[str, Any], Any]:
    config = Config.load(None, {f"audit.{name}": value for name, value in settings.items()})
    result = draw_sheet(config, store, out=str(out))
    page = Page(out.read_text())
    return page, json.loads(page.scripts[0]), result


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return mined_store(tmp_path_factory.mktemp("audited"), 300, backgrounds=True)[0]


@pytest.fixture(scope="module")
def sheet(store: Store, tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, dict[str, Any], Any]:
    return drawn(store, tmp_path_factory.mktemp("sheet") / "sheet.html")


def test_the_page_is_whole_and_fetches_nothing(sheet: tuple[Page, dict[str, Any], Any]) -> None:
    page = sheet[0]
    assert page.open == []
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed")
        assert not any(name in attributes for name in ("src", "href", "srcset", "style"))
        assert not any(name.startswith("on") for name in attributes)


def test_only_our_script_may_run(sheet: tuple[Page, dict[str, Any], Any]) -> None:
    page = sheet[0]
    kinds = [attributes.get("type") for tag, attributes in page.tags if tag == "script"]
    assert kinds == ["application/json", None]
    allowed = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    policy = next(a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv"))
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'"
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|fetch\(|XMLHttp", page.scripts[1]
    )


def test_a_hostile_camera_stays_a_name(sheet: tuple[Page, dict[str, Any], Any]) -> None:
    page, content, _ = sheet
    assert HOSTILE in {item["camera"] for item in content["items"]}
    assert "<" not in page.scripts[0]
    assert [tag for tag, _ in page.tags].count("script") == 2


def test_what_is_known_of_a_pair_is_not_on_the_page_before_its_verdict(sheet: tuple[Page, dict[str, Any], Any]) -> None:
    assert not re.search(r"IoU|margin|score|linker|assigned|cam1", sheet[0].text)


def test_every_control_has_a_name_and_every_key_is_shown(sheet: tuple[Page, dict[str, Any], Any]) -> None:
    page, content, _ = sheet
    labels = {a.get("for") for t, a in page.tags if t == "label"}
    assert {a["id"] for t, a in page.tags if t == "input"} <= labels
    for word in content["words"]:
        keys = [key for key, meant in content["keys"].items() if meant == word]
        assert len(keys) == 2
        assert page.by_id(f"say-{word}")[1]["aria-keyshortcuts"] == " ".join(keys).upper()
    assert page.by_id("status")[1]["aria-live"] == "polite"
    ids = set(re.findall(r'\$\("([a-z-]+)"\)', page.scripts[1]))
    assert ids <= {a.get("id") for _, a in page.tags}, "the script looks for what the page does not have"


def test_the_pictures_are_the_pairs_crops_on_either_side(store: Store, sheet: tuple[Page, dict[str, Any], Any]) -> None:
    content = sheet[1]
    population = read_population(store, None)
    address = {
        (str(row["anchor_id"]), str(row["positive_id"])): (row["anchor_row"], row["positive_row"])
        for row in population.pairs.to_pylist()
    }
    from wildray.packs import PackReader

    reader = PackReader(store, ("crops", DETECTIONS))
    flipped = 0
    for item in content["items"]:
        rows = address[item["anchor_id"], item["positive_id"]]
        shown = [decode_jpeg(base64.b64decode(uri.partition(",")[2])).astype(int) for uri in item["crops"]]
        kept = [reader.image("pack-000", row).astype(int) for row in rows]
        straight = sum(np.abs(one - other).mean() for one, other in zip(shown, kept, strict=True))
        crossed = sum(np.abs(one - other).mean() for one, other in zip(shown, kept[::-1], strict=True))
        assert min(straight, crossed) < 40 < max(straight, crossed)
        flipped += crossed < straight
        assert all(item["places"])
    assert 10 < flipped < 40


def test_density_counts_what_mining_could_take(store: Store) -> None:
    population = read_population(store, PAIRS)
    assert set(population.facts["density"].tolist()) == {1.0, 2.0, 3.0, 5.0}


def test_equal_settings_give_the_equal_sheet_and_another_seed_another(store: Store, tmp_path: Path) -> None:
    first, again = drawn(store, tmp_path / "1.html"), drawn(store, tmp_path / "2.html")
    other = drawn(store, tmp_path / "3.html", seed=1)
    assert (tmp_path / "1.html").read_bytes() == (tmp_path / "2.html").read_bytes()
    assert first[2].sheet == again[2].sheet != other[2].sheet


def test_fewer_pairs_than_asked_for_are_all_taken_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store, truth = mined_store(tmp_path / "s", 7)
    content = drawn(store, tmp_path / "sheet.html", num_pairs=50)[1]
    assert {(int(i["anchor_id"]), int(i["positive_id"])) for i in content["items"]} == set(truth)
    assert "50 pairs were asked for, the set has 7" in caplog.text


def test_a_single_pair_can_be_asked_for(store: Store, tmp_path: Path) -> None:
    assert drawn(store, tmp_path / "sheet.html", num_pairs=1)[2].num_strata == 1


def test_the_page_lies_in_the_store_unless_said(store: Store) -> None:
    result = draw_sheet(Config(), store)
    assert result.page == str(store.path("reports", f"audit-{result.sheet}.html"))
    record = read_record(store, result.sheet)
    assert (len(record.drawn), sum(record.size), record.pairs) == (50, 300, PAIRS)


def test_what_cannot_be_drawn_is_said(tmp_path: Path, store: Store) -> None:
    with pytest.raises(StageError, match="wildray mine"):
        draw_sheet(Config(), Store.open(tmp_path / "empty", create=True))
    with pytest.raises(StageError, match="has crops to look at"):
        draw_sheet(Config(), mined_store(tmp_path / "bare", 5, crops=False)[0])
    with pytest.raises(ConfigError, match="has no pairs 'nope'"):
        draw_sheet(Config(), store, pairs="nope")
    with pytest.raises(ConfigError, match="is a folder"):
        draw_sheet(Config(), store, out=str(tmp_path))
    nothing, _ = mined_store(tmp_path / "nothing", 5)
    nothing.collection("pairs", PAIRS).write("pairs", "all", schema.PAIRS.empty_table())
    with pytest.raises(StageError, match="is empty"):
        draw_sheet(Config(), nothing)
    packless, _ = mined_store(tmp_path / "packless", 5)
    packless.path("crops", DETECTIONS, "pack-000.arrow").unlink()
    forget_packs()
    with pytest.raises(StoreError, match="cannot be read"):
        draw_sheet(Config(), packless)


@pytest.mark.parametrize("edges", ["2,2", "3,1", "0,2", "x"])
def test_edges_that_do_not_ascend_are_refused(edges: str) -> None:
    with pytest.raises(ConfigError, match=r"audit\.density_edges"):
        Config.load(None, {"audit.density_edges": edges.split(",")})


@pytest.mark.parametrize("size", [[400, 100, 25], [1, 1, 5000], [3, 2], [10] * 12])
def test_strata_give_by_the_root_of_their_size(size: list[int]) -> None:
    sizes = np.array(size)
    given = allocate(sizes, 35)
    assert given.sum() == min(35, sizes.sum())
    assert (given <= sizes).all()
    assert (given >= np.minimum(sizes, 2)).all()
    if size == [400, 100, 25]:
        assert given.tolist() == [20, 10, 5]


def test_cells_that_are_too_many_lose_the_last_axis_first() -> None:
    facts = {
        "density": np.array([1.0, 2, 3, 4] * 6),
        "gap_s": np.arange(24) % 3 * 5.0,
        "iou": np.linspace(0.2, 0.9, 24),
    }
    edges = {"density": (2, 4), "gap_s": (1.0, 10.0), "iou": (0.35, 0.6)}
    assert set(stratify(facts, edges, max_strata=50).labels[0]) == {"density", "gap_s", "iou"}
    assert set(stratify(facts, edges, max_strata=9).labels[0]) == {"density", "gap_s"}
    fewest = stratify(facts, edges, max_strata=3)
    assert [label["density"] for label in fewest.labels] == ["1", "2 to 3", "4 and more"]
    assert fewest.size.tolist() == [6, 12, 6]
    assert stratify(facts, edges, max_strata=1).labels == [{}]
    assert class_names((0.35, 0.6), whole=False) == ["under 0.35", "0.35 to 0.6", "0.6 and more"]


def test_every_pair_of_a_stratum_has_the_same_chance() -> None:
    facts = {"density": np.repeat([1.0, 3.0], [8, 4]), "gap_s": np.ones(12), "iou": np.ones(12)}
    strata = stratify(facts, {"density": (2,), "gap_s": (), "iou": ()}, max_strata=9)
    rng, counts = np.random.default_rng(0), np.zeros(12)
    for _ in range(4000):
        rows = draw(strata, np.array([4, 1]), rng)
        assert len(set(rows.tolist())) == 5
        counts[rows] += 1
    np.testing.assert_allclose(counts / 4000, np.repeat([0.5, 0.25], [8, 4]), atol=0.04)
