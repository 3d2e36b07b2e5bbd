"""Boxes of a MOT file whose label slipped for a frame: known by the truth alone, whatever a linker makes of them.

In: frames, individuals and corners of all true boxes. Out: the boxes that carry another animal's name, and whose they
are. Counting their pairs as wrong would hold a linker to the annotators' slips.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wildray.mining.boxes import iou_matrix

FAR, NEAR = 0.3, 0.6
"""Overlap with its namesake's boxes nearby in time that a slipped box stays below, and with its owner's boxes before
and after that it reaches."""
REACH = 3
"""Frames before and after in which boxes are compared."""


def slips(
    frame: npt.NDArray[np.int64], identity: npt.NDArray[np.int64], xyxy: npt.NDArray[np.float64]
) -> dict[int, int]:
    """Rows of slipped boxes, each with the individual that it shows.

    Args:
        frame: (N,) frame of each box.
        identity: (N,) individual it is labelled as.
        xyxy: (N, 4) corners.

    Returns:
        A row is in it where its namesake's boxes of the frames around are elsewhere, while another individual has no
        box in this frame and stood at this very place both before and after.
    """
    at = {key: row for row, key in enumerate(zip(frame.tolist(), identity.tolist(), strict=True))}
    individuals = sorted(set(identity.tolist()))
    found = {}
    for (number, own), row in at.items():

        def overlap(other: int, row: int = row) -> float:
            return float(iou_matrix(xyxy[row : row + 1], xyxy[other : other + 1])[0, 0])

        around = [at[n, own] for n in range(number - REACH, number + REACH + 1) if n != number and (n, own) in at]
        if around and max(map(overlap, around)) >= FAR:
            continue
        for other in individuals:
            if other == own or (number, other) in at:
                continue
            before = [at[n, other] for n in range(number - REACH, number) if (n, other) in at][-1:]
            after = [at[n, other] for n in range(number + 1, number + REACH + 1) if (n, other) in at][:1]
            if before and after and min(overlap(before[0]), overlap(after[0])) >= NEAR:
                found[row] = other
    return found
