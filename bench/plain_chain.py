"""The chain of boxes that anybody would write first: what the linker ``chained`` is measured against.

Constant velocity from the last two boxes, optimal assignment at an overlap of 0.3, a link dropped and the chain cut
where a runner-up is within the margin, at most 4 missed frames. In: boxes of one run. Out: a number per box.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from wildray.mining.boxes import iou_matrix
from wildray.mining.following import Sightings

MIN_IOU, MARGIN, MAX_MISSED = 0.3, 0.1, 4


@dataclass
class _Track:
    """A chain that is alive: its number, and its two newest boxes with their frames."""

    chain: int
    frame: int
    box: npt.NDArray[np.float64]
    frame_before: int
    box_before: npt.NDArray[np.float64] | None = None

    def predicted(self, frame: int) -> npt.NDArray[np.float64]:
        if self.box_before is None:
            return self.box
        pace: npt.NDArray[np.float64] = (self.box - self.box_before) / (self.frame - self.frame_before)
        return self.box + pace * (frame - self.frame)


def plain_chain(boxes: Sightings, *, margin: float = MARGIN) -> npt.NDArray[np.int64]:
    """(N,) number of each box's chain.

    Args:
        boxes: Boxes of one run.
        margin: Least lead over the runner-up.
    """
    chain = np.full(len(boxes.frame), -1, dtype=np.int64)
    tracks: list[_Track] = []
    born = 0
    for number in range(len(boxes.run)):
        rows = np.flatnonzero(boxes.frame == number)
        found = boxes.xyxy[:, rows].T
        predicted = np.array([track.predicted(number) for track in tracks]).reshape(-1, 4)
        iou = iou_matrix(predicted, found)
        linked: set[int] = set()
        cut: set[int] = set()
        for t, r in zip(*linear_sum_assignment(np.where(iou >= MIN_IOU, iou, 0.0), maximize=True), strict=True):
            if iou[t, r] < MIN_IOU:
                continue
            rival = max([*np.delete(iou[t], r), *np.delete(iou[:, r], t)], default=0.0)
            if iou[t, r] - rival < margin:
                cut.add(int(t))
                continue
            track = tracks[t]
            tracks[t] = _Track(track.chain, number, found[r], track.frame, track.box)
            chain[rows[r]] = track.chain
            linked.add(int(r))
        tracks = [t for i, t in enumerate(tracks) if i not in cut and number - t.frame <= MAX_MISSED]
        for r in set(range(len(rows))) - linked:
            tracks.append(_Track(born, number, found[r], number))
            chain[rows[r]] = born
            born += 1
    return chain
