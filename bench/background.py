"""How much a network learns of scenery, and what helps: ``python -m bench.background --table docs/background.md``.

In: a working folder, where the reserve is made once. Out: for each remedy and backbone, over three seeds, how well
animals are found again elsewhere, and how much of the scenery the embeddings hold. The two crops of a pair share their
scenery, so SimCLR can lower its loss without a look at the animal; remedies take that away.

Scenery is measured twice. *From the background alone*: the box of the animal is painted over with the colour of its
rim, and what is left is to find the other pictures of its encounter, which show the same place: above chance is what
scenery gives away. *Camera*: another individual at the same camera is to be found, with the animal in the picture:
what a good embedding of animals cannot do.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.experiments import Bench, Run, command
from bench.measures import Float64, Measured, Retrieval, measured
from bench.methods import BACKBONES, NUM_IMAGES, PRECISION, SEEDS, SMOKE_IMAGES
from bench.pages import MISSING, origin, over, speed, states, table, with_interval
from bench.record import Result, Results
from bench.reserve import EITHER_FLANK, ELSEWHERE, Reserve, open_reserve, reserve_config
from bench.verdicts import STATUS_RULE, VERDICT_RULE, contrast, counts, pooled_std
from wildray.config import Config, EvalConfig
from wildray.labelled import open_labelled
from wildray.learning.backbone import Backbone
from wildray.learning.pairs import box_in_crop
from wildray.metadata import parse_bbox
from wildray.retrieval.forward import UInt8, unit_vectors
from wildray.retrieval.splits import Columns

REMEDIES: Mapping[str, Mapping[str, object]] = {
    "none": {},
    "camera": {"train.balance": "camera"},
    "swap": {"augment.background": "swap", "augment.background_mask": "motion"},
    "blur": {"augment.background": "blur"},
    "gray": {"augment.background": "gray"},
    "tighten": {"augment.tighten": 0.08},
}
"""Settings of each remedy, all with SimCLR on temporal pairs."""
MEANINGS: Mapping[str, str] = {
    "none": "nothing",
    "camera": "batches of one camera",
    "swap": "animal onto other cameras' empty frames",
    "blur": "scenery blurred",
    "gray": "scenery grey",
    "tighten": "tighter crops",
}
ANYWHERE = EvalConfig(exclude=())
OTHER_ANIMALS = EvalConfig(exclude=("animal",))


@dataclass(frozen=True)
class Shortcut:
    """Measures retrieval of animals and of scenery; pickles.

    Attributes:
        animals: Retrieval of animals elsewhere, which comes first.
        padding: Of the labelled images' crops.
        frame_size: (width, height) of the frames in pixels.
    """

    animals: Retrieval
    padding: float
    frame_size: tuple[int, int]

    def __call__(self, backbone: Backbone) -> Measured:
        """Embed the images, and once more without the animals."""
        labelled = open_labelled(self.animals.store, self.animals.data)
        columns = labelled.text_columns
        images = self.animals.images(backbone.image_size)
        boxes = animal_boxes(columns, padding=self.padding, frame_size=self.frame_size)
        whole = unit_vectors(backbone, images, batch_size=64)
        emptied = unit_vectors(backbone, without_animals(images, boxes), batch_size=64)
        found = measured(whole, columns, self.animals.protocols)
        cameras = {"identity": columns["camera_id"], "animal": columns["identity"]}
        figures = {
            **found.figures,
            **_under("background_", measured(emptied, columns, {"": ANYWHERE})),
            **_under("camera_", measured(whole, cameras, {"": OTHER_ANIMALS})),
        }
        return Measured(figures, found.average_precision, found.identity)


def _under(prefix: str, found: Measured) -> dict[str, float]:
    return {f"{prefix}{name}": found.figures[name] for name in ("mAP", "mAP_low", "mAP_high", "chance_mAP")}


def animal_boxes(columns: Columns, *, padding: float, frame_size: tuple[int, int]) -> Float64:
    """Where the animal's box lies in each labelled crop; (N, 4) corners as shares of the crop's sides."""
    boxes = [parse_bbox(text or "") for text in columns["bbox"]]
    assert all(box is not None for box in boxes), "every labelled picture of a reserve has a box"
    xyxy_px = np.array(boxes, dtype=np.float32)
    size_px = np.broadcast_to(np.array(frame_size, dtype=np.int64), (len(boxes), 2))
    return box_in_crop(xyxy_px, padding=padding, size_px=size_px).astype(np.float64)


def without_animals(images: UInt8, boxes: npt.NDArray[np.float64]) -> UInt8:
    """Images whose boxes are filled with the mean colour of what lies outside.

    Args:
        images: (N, 3, P, P) uint8 RGB.
        boxes: (N, 4) corners as shares of the sides.

    Returns:
        (N, 3, P, P) uint8; an image that is all box becomes grey.
    """
    size = images.shape[-1]
    out = images.copy()
    for image, box in zip(out, boxes, strict=True):
        left, top = np.floor(box[:2] * size).astype(int)
        right, bottom = np.ceil(box[2:] * size).astype(int)
        outside = np.ones((size, size), dtype=bool)
        outside[top:bottom, left:right] = False
        colour = image[:, outside].mean(axis=1) if outside.any() else np.full(3, 127.5)
        image[:, ~outside] = np.round(colour).astype(np.uint8)[:, None]
    return out


def name_of(backbone: str, remedy: str, seed: int) -> str:
    """Name of a run."""
    return f"background-{backbone}-{remedy}-s{seed}"


def run_of(backbone: str, remedy: str, seed: int, reserve: Reserve, *, num_images: int) -> Run:
    """A training run."""
    settings = {
        **BACKBONES[backbone],
        "train.method": "simclr",
        "train.seed": seed,
        "train.precision": PRECISION,
        "train.probe_every": 0,
        "augment.background": "keep",
        **REMEDIES[remedy],
    }
    part = reserve.parts["whole"]
    animals = Retrieval(reserve.store, reserve.held_out, {"": ELSEWHERE, "either_flank_": EITHER_FLANK})
    padding = reserve_config(smoke=False).detect.crop_padding
    return Run(
        name=name_of(backbone, remedy, seed),
        config=Config.load(overrides=settings),
        store=reserve.store,
        samples=part.pairs,
        num_samples=part.num_pairs,
        num_images=num_images,
        measure=Shortcut(animals, padding, reserve.frame_size),
    )


def plan(work: Path, smoke: bool) -> Callable[[Results], list[Run]]:
    """All runs, after making the reserve: each remedy at seed 0, ResNet-18 first, then further seeds."""
    reserve = open_reserve(work, smoke=smoke)
    num_images = SMOKE_IMAGES if smoke else NUM_IMAGES
    wanted = [(backbone, remedy, seed) for seed in SEEDS for backbone in BACKBONES for remedy in REMEDIES]
    runs = [run_of(*one, reserve, num_images=num_images) for one in wanted]
    return lambda results: runs


def page(results: Results) -> str:
    """The page as Markdown."""
    sections = [
        "# The background shortcut",
        origin(results, command="python -m bench.background --table docs/background.md"),
        "SimCLR on temporal pairs of the simulated reserve of methods.md, at the same budget, with and without each "
        "remedy. *mAP*: an animal that was never filmed is to be found again at another camera, by the same flank. "
        "*From the background alone*: its box is painted over, and the other pictures of its encounter are to be "
        "found: how far above chance is what scenery gives away. *Camera*: another individual at the same camera is "
        "to be found, with the animals in the pictures: an embedding of animals alone would be at chance. Brackets "
        f"are 95 % intervals over held-out individuals, ± is the standard deviation over seeds.\n\n{STATUS_RULE}",
        *(f"## {title}\n\n{_table(results, backbone)}" for backbone, title in TITLES.items()),
        "## What helps\n\n" + _verdicts(results),
    ]
    return "\n\n".join(sections) + "\n"


TITLES = {"resnet18": "ResNet-18, 64 px", "vit_tiny": "ViT-Tiny/16, 64 px"}


def _found(results: Results, backbone: str, remedy: str) -> list[Result]:
    names = [name_of(backbone, remedy, seed) for seed in SEEDS]
    return [results[name] for name in names if name in results and results[name]["error"] is None]


def _table(results: Results, backbone: str) -> str:
    header = [
        "remedy",
        "",
        "seeds",
        "loss, last epoch",
        "mAP",
        "from the background alone",
        "camera",
        "seconds, images/s",
    ]
    rows = []
    for remedy, meaning in MEANINGS.items():
        found = _found(results, backbone, remedy)
        if not found:
            rows.append([meaning, MISSING, *[""] * 6])
            continue
        rows.append(
            [
                meaning,
                states(found),
                str(len(found)),
                over(found, lambda one: one["loss_last"], 2),
                with_interval(found),
                over(found, lambda one: one["after"]["background_mAP"]),
                over(found, lambda one: one["after"]["camera_mAP"]),
                speed(found, results),
            ]
        )
    start = [one for remedy in REMEDIES for one in _found(results, backbone, remedy)][:1]
    if start:
        before = start[0]["before"]
        figures = [f"{before[name]:.3f}" for name in ("mAP", "background_mAP", "camera_mAP")]
        lucky = [f"{before[name]:.3f}" for name in ("chance_mAP", "background_chance_mAP", "camera_chance_mAP")]
        rows.append(["*before training*", "", "", "", *figures, ""])
        rows.append(["*chance*", "", "", "", *lucky, ""])
    return table(header, rows)


def _verdicts(results: Results) -> str:
    lines = [
        "For each remedy D is its mAP minus that without any, over the seeds that both were run with; held is called "
        f"**helps** here, and not held **harms**. {VERDICT_RULE}"
    ]
    for backbone, title in TITLES.items():
        groups = [[name_of(backbone, remedy, seed) for seed in SEEDS] for remedy in REMEDIES]
        spread = pooled_std(results, groups)
        for remedy in list(REMEDIES)[1:]:
            pairs = [(name_of(backbone, remedy, seed), name_of(backbone, "none", seed)) for seed in SEEDS]
            pairs = [both for both in pairs if all(name in results and counts(results[name]) for name in both)]
            if not pairs:
                lines.append(f"- {title}, {MEANINGS[remedy]}: {MISSING}, or none that may decide it.")
                continue
            weights = {with_it: 1 / len(pairs) for with_it, _ in pairs} | {bare: -1 / len(pairs) for _, bare in pairs}
            found = contrast(results, weights, spread=spread)
            word = {"held": "helps", "not held": "harms"}.get(found.verdict, found.verdict)
            lines.append(f"- {title}, {MEANINGS[remedy]}: **{word}**, {found}.")
    return lines[0] + "\n\n" + "\n".join(lines[1:])


if __name__ == "__main__":
    sys.exit(command(Bench("background", plan, page)))
