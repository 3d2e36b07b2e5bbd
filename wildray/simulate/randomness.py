"""Random streams that are named, not drawn in turn.

In: the seed and names. Out: a generator that depends on nothing else, so that a clip is the same whichever process
makes it and whatever was made before. One generator handed through the world would tie every clip to its order.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from wildray.schema import hash64

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


def stream(seed: int, *names: object) -> np.random.Generator:
    """The generator of a name: ``stream(0, "coat", 3, "left")``."""
    return np.random.default_rng(hash64((seed, *names)) & 0xFFFFFFFFFFFFFFFF)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, int]) -> F32:
    """Smooth noise of about unit standard deviation.

    Args:
        rng: Where it is drawn from; as many numbers are drawn for every ``shape``.
        shape: (height, width) of the result.
        cells: (rows, columns) of the coarse grid that is interpolated.

    Returns:
        (height, width) float32.
    """
    grid = rng.standard_normal(cells).astype(np.float32)
    return np.asarray(cv2.resize(grid, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def cloud_noise(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, int], octaves: int = 4) -> F32:
    """Sum of smooth noises, each twice as fine and half as strong; (height, width) float32, about unit deviation."""
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        total += smooth_noise(rng, shape, (cells[0] << octave, cells[1] << octave)) * np.float32(0.5**octave)
    return total * np.float32(0.87)
