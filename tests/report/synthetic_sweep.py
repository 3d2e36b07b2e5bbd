"""Records of synthetic sweeps, and a reader of the pages made of them."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterable, Mapping
from html.parser import HTMLParser
from typing import Any

from wildray.report.sweeps.build import SweepPage
from wildray.report.sweeps.records import Sweep
from wildray.store import Store
from wildray.trials import Ledger, TrialRecord

NAME = "study"
HOSTILE = "<script>alert(1)</script>"
PARAMETERS = {
    "vit_tiny_patch16_224": 5_500_000, "vit_small_patch16_224": 21_700_000, "resnet50": 23_500_000,
    "vit_base_patch16_224": 85_800_000,
}  # fmt: skip
SMOKE = {
    "mine.min_iou": [0.1, 0.2, 0.5],
    "mine.interval": ["120frames", "2s"],
    "backbone.name": ["vit_tiny_patch16_224", "resnet50"],
}
MEASUREMENTS, IMAGES = 4, 500


def quality(settings: Mapping[str, Any]) -> float:
    """mAP of a synthetic trial: best at an IoU of 0.2, better with larger backbones."""
    value = 0.45 - 0.6 * abs(settings.get("mine.min_iou", 0.2) - 0.2)
    value += 0.06 * math.log10(PARAMETERS.get(str(settings.get("backbone.name")), 5e6) / 5e6)
    return value + (0.03 if str(settings.get("mine.interval")).endswith("s") else 0.0)


def epochs(value: float, number: int, **more: float) -> tuple[dict[str, float], ...]:
    """A history that ends in an mAP."""
    found = []
    for epoch in range(1, number + 1):
        mean = value * (0.4 + 0.6 * epoch / number)
        found.append(
            {"epoch": epoch, "step": 10 * epoch, "loss": 5 - epoch / 2, "seconds": 20.0, "images_per_s": 25.0}
            | {
                "embedding_rank": 12.0,
                "mAP": mean,
                "mAP_low": mean - 0.05,
                "mAP_high": mean + 0.04,
                "cmc_1": mean + 0.1,
            }
            | {f"mAP/{name}": mean + gain for name, gain in more.items()}
        )
    return tuple(found)


def record(
    trial: str, settings: Mapping[str, Any], *, seed: int = 0, value: float | None = None, **more: Any
) -> TrialRecord:
    """A trial that finished, unless ``more`` says otherwise."""
    value = quality(settings) if value is None else value
    backbone = str(settings.get("backbone.name"))
    made = TrialRecord(
        trial=trial, setting=json.dumps(settings, sort_keys=True), seed=seed, settings=settings, status="finished",
        pairs="p0", num_samples=int(1000 / settings.get("mine.min_iou", 0.2)), images_per_epoch=float(IMAGES),
        num_epochs=MEASUREMENTS, num_parameters=PARAMETERS.get(backbone, 5_500_000), startup_s=(12.0,), seconds=100.0,
        core_hours=0.05, history=epochs(value, MEASUREMENTS), began_at=1.0, ended_at=101.0,
    )  # fmt: skip
    return dataclasses.replace(made, **more)


def stopped(made: TrialRecord, after: int) -> TrialRecord:
    """The same trial, ended by ASHA after some measurements."""
    return dataclasses.replace(
        made, status="stopped", reason="asha: behind at a rung", history=made.history[:after], seconds=12 + 22.0 * after
    )


def combinations(search: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(search, values, strict=True)) for values in itertools.product(*search.values())]


def content(records: Iterable[TrialRecord], search: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """``sweep.json`` of an ended sweep, the best setting by mAP."""
    records = list(records)
    dimensions = {
        name: part if isinstance(part, dict) else {"grid": part, "choice": None} for name, part in search.items()
    }
    spec = {
        "name": NAME, "base": {"backbone": {"image_size": 96}}, "search": dimensions, "seeds": [0],
        "scheduler": {"kind": "asha", "grace": 1, "reduction": 2.0},
        "budget": {"images": 2000, "measurements": MEASUREMENTS},
        "objective": [{"metric": "mAP", "mode": "max"}],
    }  # fmt: skip
    done = sorted((r for r in records if r.status == "finished" and r.metrics), key=lambda r: -r.metrics["mAP"])
    best = None
    if done:
        best = {
            "setting": done[0].setting, "trial": done[0].trial, "settings": dict(done[0].settings),
            "validation": {key: done[0].metrics[key] for key in ("mAP", "mAP_low", "mAP_high")},
            "test": {"mAP": 0.3987, "mAP_low": 0.3456, "mAP_high": 0.4321, "cmc_1": 0.5432, "untrained_mAP": 0.2109,
                     "chance_mAP": 0.0871},
            "not_better_than": [r.setting for r in done[1:3]],
        }  # fmt: skip
    return {
        "name": NAME, "description": "IoU and interval", "began_at": 1.0, "ended_at": 1501.0, "seconds": 1500.0,
        "spec": spec, "trials": [r.trial for r in records],
        "split": {"train": None, "validation": {"num_identities": 20, "num_images": 411, "digest": "v0"},
                  "test": {"num_identities": 21, "num_images": 433, "digest": "t0"}},
        "shared": {"seconds": {"simulate": 60.0, "detect": 120.0, "mine": 6.0, "untrained": 14.0},
                   "detections": {"num_media": 40, "num_frames": 2400, "num_detections": 1777},
                   "pairs": [{"digest": "p0", "num_pairs": 987, "settings": {"mine.min_iou": 0.2}}]},
        "untrained": {f"{name}/96": {"mAP": 0.1 + place / 100, "mAP_low": 0.08, "mAP_high": 0.2, "cmc_1": 0.3}
                      for place, name in enumerate(PARAMETERS)},
        "chance_mAP": 0.0912, "best": best,
    } | more  # fmt: skip


def write(store: Store, records: Iterable[TrialRecord], known: Mapping[str, Any] | None) -> None:
    ledger = Ledger(store, NAME)
    for made in records:
        ledger.write(made)
    if known is not None:
        ledger.write_sweep(known)


def smoke_records() -> list[TrialRecord]:
    """12 trials: 5 finished, 6 stopped by ASHA, 1 failed."""
    made = [
        record(f"study-{place:02d}", settings, history=epochs(quality(settings), 4, nyala=0.05, leopard=-0.07))
        for place, settings in enumerate(combinations(SMOKE))
    ]
    for place in (0, 1, 2, 8, 9, 10):
        made[place] = stopped(made[place], 1 if place % 2 else 2)
    made[11] = dataclasses.replace(made[11], status="failed", reason="out of memory: asked for 7 GiB", history=())
    return made


class Read(HTMLParser):
    """Text and elements of a page."""

    def __init__(self, page: SweepPage) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(page.page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)
        if tag == "section":
            self.ids.append(str(dict(attrs)["id"]))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    def row(self, first: str) -> list[str]:
        return next(row for row in self.rows if row and row[0] == first)


def sweep_of(records: Iterable[TrialRecord], search: Mapping[str, Any], **more: Any) -> Sweep:
    """A sweep as it is read."""
    records = tuple(records)
    return Sweep(NAME, content(records, search, **more), records)
