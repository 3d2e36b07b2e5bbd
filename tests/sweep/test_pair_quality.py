"""A study of pair quality: what it mines, what it takes over, and that its rows are what one setting alone comes to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from wildray.cli.main import main
from wildray.errors import ConfigError, DataError
from wildray.mining.detect import detect
from wildray.mining.judge import pair_quality
from wildray.mining.mine import mine
from wildray.mining.truth import read_truth
from wildray.store import Store
from wildray.sweep.pair_quality import PairGrid, in_store, prepare, study

GRID = {
    "mine.linker": ["direct", "assigned"],
    "mine.min_iou": [0.2, 0.4],
    "mine.interval": ["3frames", "12frames"],
    "mine.min_margin": [0.0, 0.1],
}


def herd(path: Path, *, num_frames: int = 72, num: int = 5) -> Path:
    """Animals that walk past each other: boxes of 80 x 60 pixels in lanes that overlap."""
    lines = []
    for frame in range(num_frames):
        for animal in range(num):
            step = 5 if animal % 2 else -4
            x = (70 * animal + step * frame) % 520
            lines.append(f"{frame + 1},{animal + 1},{x},{40 + 18 * animal},80,60,1,1,1\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines))
    return path


def write_grid(folder: Path, **parts: object) -> Path:
    path = folder / "grid.yaml"
    footage = {"herd": {"media": ["$HERD/herd_gt.txt"], "detect": {"mot_fps": 25, "mot_every": [1, 3]}}}
    path.write_text(yaml.safe_dump({"grid": GRID, "footage": footage, **parts}))
    return path


@pytest.fixture
def grid_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    herd(tmp_path / "data" / "herd_gt.txt")
    monkeypatch.setenv("HERD", str(tmp_path / "data"))
    return write_grid(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", create=True)


@pytest.mark.usefixtures("ray_connected")
def test_every_pair_set_is_mined_once_and_a_study_that_was_killed_goes_on(grid_file: Path, store: Store) -> None:
    grid = PairGrid.load(grid_file)
    collections = prepare(grid, store, workers=1)
    assert [each.name for each in collections] == ["herd, mot_every 1", "herd, mot_every 3"]
    first = study(grid, collections, store)
    # direct uses no margin: of its 8 settings 4 are different, of those of assigned all 8
    assert (first.num_points, first.num_pair_sets, first.num_mined, first.num_decoded) == (32, 24, 24, 0)
    rows = json.loads(Path(first.results).read_text())["rows"]
    assert len({(row["collection"], row["pairs"]) for row in rows}) == 24
    judged = sorted(store.path("purity", ".judged").iterdir())
    assert len(judged) == 24
    for path in judged[:5]:
        path.unlink()
    again = study(grid, prepare(grid, store, workers=2), store)
    assert (again.num_points, again.num_pair_sets, again.num_mined, again.num_decoded) == (32, 24, 5, 0)
    assert json.loads(Path(again.results).read_text())["rows"] == rows
    other = study(grid, collections, store, min_iou=0.5)
    assert other.num_mined == 24


@pytest.mark.usefixtures("ray_connected")
def test_a_row_is_what_detect_mine_and_purity_come_to(grid_file: Path, store: Store) -> None:
    grid = PairGrid.load(grid_file)
    result = study(grid, prepare(grid, store, workers=1), store)
    rows = json.loads(Path(result.results).read_text())["rows"]
    row = next(
        row
        for row in rows
        if row["collection"] == "herd, mot_every 3"
        and row["settings"]
        == {"mine.linker": "assigned", "mine.min_iou": 0.2, "mine.interval": "12frames", "mine.min_margin": 0.1}
    )
    config = grid.config({**row["settings"], "detect.mot_fps": 25, "detect.mot_every": 3, "scale.workers": 1})
    file = str(grid_file.parent / "data" / "herd_gt.txt")
    assert detect(config, store, [file]).digest == row["detections"]
    pairs = mine(config, store).digest
    assert pairs == row["pairs"]
    alone = pair_quality(store, read_truth([file]), pairs=pairs).to_json()
    assert 0 < row["num_pairs"] == alone["num_pairs"]
    assert (row["purity"], row["low"], row["high"]) == tuple(alone[n] for n in ("purity", "purity_low", "purity_high"))
    assert row["num_unmatched_truth"] == alone["num_unmatched_truth"] > 0
    assert json.dumps(row["tables"]["density"]) == json.dumps(alone["tables"]["density"])
    assert row["minutes"] == pytest.approx(72 / 25 / 60)
    assert row["frames_per_s"] == pytest.approx(25 / 3)
    assert row["right_per_minute"] == pytest.approx(row["num_same"] / row["minutes"])


@pytest.mark.usefixtures("ray_connected")
def test_a_truth_of_other_media_is_said_before_anything_is_mined(grid_file: Path, store: Store) -> None:
    grid = PairGrid.load(grid_file)
    prepare(grid, store, workers=1)
    other = herd(grid_file.parent / "other" / "lake_gt.txt", num_frames=3)
    with pytest.raises(DataError, match=r"No truth for 1 of 1 media.*tell of lake"):
        study(grid, [in_store(store, [str(other)], detections=None)], store)
    assert not store.path("purity", ".judged").exists()


def test_footage_that_is_not_there(grid_file: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HERD")
    with pytest.raises(ConfigError, match="names no footage that is there: set the variables"):
        prepare(PairGrid.load(grid_file), store, workers=1)
    store.collection("detections", "d").begin({})
    with pytest.raises(ConfigError, match="no detections 'x'"):
        in_store(store, ["t.txt"], detections="x")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"gird": {}}, "no part 'gird'. Did you mean 'grid'"),
        ({"grid": {"mine.linkre": ["direct"]}}, "no setting of mining is called 'mine.linkre'. Did you mean"),
        ({"grid": {"detect.min_score": [0.2]}}, "no setting of mining"),
        ({"grid": {"mine.linker": []}}, "has no values"),
        ({"grid": {"mine.linker": ["guess"]}}, "mine.linker"),
        ({"grid": {"mine.min_iou": 0.2}}, "grid.mine.min_iou"),
        ({"footage": {"x": {}}}, "x needs either media: or simulate:"),
        ({"footage": {"x": {"media": ["a.txt"], "detect": {"mot_evry": 3}}}}, "detect.mot_evry"),
        ({"footage": {"x": {"simulate": {"num_videos": 0}}}}, "simulate.num_videos"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(tmp_path: Path, parts: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PairGrid.load(write_grid(tmp_path, **parts))


def test_the_grid_that_comes_with_it_holds() -> None:
    grid = PairGrid.load(Path(__file__).parents[2] / "tuning" / "pair_quality.yaml")
    assert len(grid.points()) >= 240
    assert "/" not in "".join(path[0] for footage in grid.footage.values() for path in footage.media)


def run(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, object], str]:
    status = main(["purity", *words, "--json"])
    printed = capsys.readouterr()
    return status, json.loads(printed.out.splitlines()[-1]), printed.err


@pytest.mark.usefixtures("ray_connected")
def test_the_command(grid_file: Path, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    status, result, _ = run("--grid", str(grid_file), "--store", store.root, capsys=capsys)
    assert status == 0
    assert (result["num_pair_sets"], result["num_mined"], result["num_decoded"]) == (24, 24, 0)
    assert Path(str(result["page"])).is_file()
    assert "| herd |" in Path(str(result["table"])).read_text()
    truth = str(grid_file.parent / "data" / "herd_gt.txt")
    words = ("--truth", truth, "--grid", str(grid_file), "--store", store.root)
    status, result, _ = run(*words, capsys=capsys)
    assert (status, result["num_collections"], result["num_mined"]) == (0, 1, 0)
    assert main(["mine", "--store", store.root, "--mine.interval", "3frames", "-q"]) == 0
    capsys.readouterr()
    status, result, _ = run("--truth", truth, "--store", store.root, capsys=capsys)
    assert status == 0
    wanted = {
        "purity", "purity_low", "purity_high", "num_pairs", "num_individuals", "num_encounters",
        "num_unmatched_detections", "num_unmatched_truth", "tables",
    }  # fmt: skip
    assert wanted <= set(result)
    assert main(["purity", "--truth", truth, "--store", store.root]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"purity {result['purity']:.3f}" in text
    assert "4-7 animals" in text


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ([], 2, "Truth is needed: --truth FILE"),
        (["--truth", "t.txt", "--match-iou", "0"], 2, "--match-iou: got 0.0"),
        (["--truth", "t.txt", "--detections", "d"], 2, "--detections goes with --grid"),
        (["--grid", "g.yaml", "--pairs", "p"], 2, "--pairs judges one pair set"),
        (["--grid", "/missing.yaml"], 2, "/missing.yaml cannot be read"),
        (["--truth", "/missing_gt.txt"], 1, "/missing_gt.txt cannot be read"),
        (["--truth", "x.csv"], 1, "unknown kind '.csv'"),
    ],
)
def test_wrong_words(
    store: Store, capsys: pytest.CaptureFixture[str], words: list[str], status: int, message: str
) -> None:
    got, result, _ = run(*words, "--store", store.root, capsys=capsys)
    assert got == status
    assert message in str(result["error"])
