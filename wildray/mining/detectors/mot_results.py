"""What a detector would have said of media whose truth is known: MOT ground truth as a results file.

In: ground-truth files and the settings ``detect.mot_*``. Out: ``Results`` as of a MegaDetector file: of every n-th
frame the true boxes with jittered corners, some of them missed, some false ones among them, each with a score. Every
frame has random numbers of its own, so that a frame's boxes are the same at every detection rate. The alternative, to
mine the truth as it is, would flatter every linker: no real detector hits the same corner twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wildray.config import DetectConfig
from wildray.errors import ConfigError, DataError
from wildray.mining.detectors.mot_file import NUM_COLOURS, MotTruth, read_mot
from wildray.mining.detectors.results import Results
from wildray.mining.detectors.results_file import ListedFile

logger = logging.getLogger(__name__)

SETTINGS = frozenset({"mot_fps", "mot_every", "mot_jitter", "mot_missed", "mot_false_boxes", "mot_seed"})
"""Of the section ``detect``: they concern no other input."""
SUFFIX = ".txt"
LEAST_TRUE, LEAST_FALSE, SPAN_TRUE, SPAN_FALSE = 0.3, 0.1, 0.7, 0.6
"""Scores: 1 - 0.7 u^2 of a true box (0.3 to 1, most of them high), 0.1 + 0.6 u^2 of a false one (0.1 to 0.7, most of
them low), u uniform in [0, 1). Ours, not measured on a detector: they give thresholds something to choose from."""


def read_mot_results(paths: Sequence[str | Path], config: DetectConfig) -> Results:
    """The boxes that a detector would have found in media of a known truth.

    Args:
        paths: MOT ground truth, a file for each medium. Of several, media are named after the path from the folder that
            they share, and their cameras after the folders in it.
        config: ``mot_*``, and ``frame_size``; without the latter the size is that which the colours' file states, or
            the least that holds all boxes.

    Raises:
        ConfigError: ``mot_fps`` is not set.
        DataError: A file is not of the format.
    """
    files = sorted(Path(path).expanduser().absolute() for path in paths)
    if config.mot_fps is None:
        raise ConfigError(
            f"{files[0]} says nothing of time: give the frames a second of its video as --detect.mot-fps, such as 25."
        )
    truths = [read_mot(path) for path in files]
    size = _frame_size(truths, config)
    listed: dict[str, ListedFile] = {}
    num_true = 0
    for path, truth in zip(files, truths, strict=True):
        name = truth.name if len(files) == 1 else _name_among(path, files, truth.name)
        if name in listed:
            raise DataError(f"{path}: another file tells of the medium {name}, too. Rename one of them.")
        listed[name] = detected(truth, config, name=name, fps=config.mot_fps, frame_size_px=size)
        num_true += int(np.isin(truth.frame_index, listed[name].frames).sum())
    logger.info(
        "MOT ground truth of %d media: %d frames looked at, %d boxes made of %d true ones", len(files),
        sum(len(one.frames) for one in listed.values()), sum(len(one.score) for one in listed.values()), num_true,
    )  # fmt: skip
    digest = truths[0].digest
    if len(files) > 1:
        named = [[name, truth.digest] for name, truth in zip(listed, truths, strict=True)]
        digest = hashlib.blake2b(json.dumps(named).encode(), digest_size=16).hexdigest()
    return Results(files[0], digest, "MOT ground truth", listed, size, camera_is_name=True, paths=tuple(files))


def _name_among(path: Path, files: Sequence[Path], name: str) -> str:
    """A medium's name among others: with the folders that tell it from them."""
    shared = Path(os.path.commonpath([file.parent for file in files]))
    folder = path.parent.parent if path.stem == path.parent.name == "gt" else path.parent
    inner = folder.relative_to(shared).parts if folder.is_relative_to(shared) else ()
    if inner and inner[-1] == name:  # NAME/gt/gt.txt
        inner = inner[:-1]
    return "/".join((*inner, name))


def _frame_size(truths: Sequence[MotTruth], config: DetectConfig) -> tuple[int, int]:
    if config.frame_size is not None:
        width, _, height = config.frame_size.partition("x")
        return int(width), int(height)
    stated = {truth.frame_size_px for truth in truths}
    if len(stated) == 1 and (size := stated.pop()) is not None:
        return size
    width_px, height_px = (max(1, math.ceil(max(truth.xyxy_px[:, side].max() for truth in truths))) for side in (2, 3))
    logger.warning(
        "MOT ground truth: the frame's size is not known; %d x %d pixels hold all boxes. --detect.frame-size says it.",
        width_px, height_px,
    )  # fmt: skip
    return width_px, height_px


def detected(
    truth: MotTruth, config: DetectConfig, *, name: str, fps: float, frame_size_px: tuple[int, int]
) -> ListedFile:
    """The boxes of every ``mot_every``-th frame as a detector would have found them.

    Args:
        truth: What there is.
        config: ``mot_every``, ``mot_jitter``, ``mot_missed``, ``mot_false_boxes`` and ``mot_seed``.
        name: Of the medium.
        fps: Frames a second.
        frame_size_px: Width and height; boxes are cut at the frame's edge.
    """
    frames = np.arange(0, truth.num_frames, config.mot_every)
    starts = np.searchsorted(truth.frame_index, frames)
    ends = np.searchsorted(truth.frame_index, frames, side="right")
    sides = truth.xyxy_px[:, 2:] - truth.xyxy_px[:, :2]
    size = np.array(frame_size_px, dtype=np.float64)
    boxes: list[npt.NDArray[np.float64]] = [np.zeros((0, 4))]
    scores, numbers, rows = [np.zeros(0)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for frame, begin, end in zip(frames.tolist(), starts.tolist(), ends.tolist(), strict=True):
        if begin == end and config.mot_false_boxes == 0:
            continue
        rng = np.random.default_rng((config.mot_seed, frame))
        shifts, luck, worth = (rng.standard_normal((end - begin, 4)), *rng.random((2, end - begin)))
        jittered = truth.xyxy_px[begin:end] + shifts * config.mot_jitter * np.tile(sides[begin:end], 2)
        kept = luck >= config.mot_missed
        invented = int(rng.poisson(config.mot_false_boxes))
        side = np.minimum(sides[rng.integers(0, len(sides), invented)], size)
        corner = rng.random((invented, 2)) * (size - side)
        boxes += [jittered[kept], np.concatenate([corner, corner + side], axis=1)]
        scores += [1 - SPAN_TRUE * worth[kept] ** 2, LEAST_FALSE + SPAN_FALSE * rng.random(invented) ** 2]
        numbers.append(np.full(int(kept.sum()) + invented, frame))
        rows += [np.arange(begin, end)[kept], np.full(invented, -1)]
    xyxy = np.clip(np.concatenate(boxes) / np.tile(size, 2), 0, 1).astype(np.float32)
    inside = (xyxy[:, 0] < xyxy[:, 2]) & (xyxy[:, 1] < xyxy[:, 3])
    row = np.concatenate(rows)[inside]
    colour, known = None, None
    if truth.colour is not None:
        known = (row >= 0) & truth.has_colour[row]
        colour = np.where(known[:, None], truth.colour[row], np.zeros(NUM_COLOURS, np.uint8))
    return ListedFile(
        file=name,
        failure=None,
        frame_rate=fps,
        frames=frames.astype(np.int32),
        frame_number=np.concatenate(numbers)[inside].astype(np.int32),
        xyxy=xyxy[inside],
        score=np.concatenate(scores)[inside].astype(np.float32),
        category=np.full(len(row), "animal"),
        num_frames=truth.num_frames,
        colour=colour,
        has_colour=known,
    )
