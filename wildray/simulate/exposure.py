"""Exposure: what light, lens and sensor make of a drawn frame.

In: a frame as it would be in flat daylight. Out: the frame as the camera writes it: the light of the hour or the
infra-red flash of the night, the camera's own white balance and softness, noise, and the date stamp.
"""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from wildray.config import SimulateConfig
from wildray.simulate.coats import U8
from wildray.simulate.randomness import smooth_noise, stream
from wildray.simulate.scenery import Scene
from wildray.simulate.script import Capture

_INFRARED = np.array([[0.52, 0.34, 0.14]], np.float32)
"""How much of red, green and blue a sensor without its infra-red filter sees; the coats keep their contrast."""


def frame_shape(config: SimulateConfig) -> tuple[int, int]:
    """(height, width) of the frames in pixels."""
    width, _, height = config.frame_size.partition("x")
    return int(height), int(width)


@lru_cache(maxsize=8)
def _noise_bank(seed: int, level: float, shape: tuple[int, int], channels: int) -> npt.NDArray[np.int16]:
    """Noise larger than a frame, of which every frame takes another part; one colour of noise in four is grey."""
    rng = stream(seed, "noise", level, channels)
    grey = rng.standard_normal((shape[0] + 96, shape[1] + 96, 1), np.float32)
    color = rng.standard_normal((shape[0] + 96, shape[1] + 96, channels), np.float32)
    noise = level * (0.8 * grey + (0.6 * color if channels == 3 else 0.0))
    return np.round(noise if channels == 3 else noise[..., :1]).astype(np.int16)


class Exposure:
    """Light, lens, sensor and stamp of one capture."""

    def __init__(self, config: SimulateConfig, capture: Capture, scene: Scene) -> None:
        shape = frame_shape(config)
        self._rng = stream(config.seed, "frames", capture.name)
        rng = stream(config.seed, "light", capture.captured_at.isoformat(), capture.camera)
        self._seed, self._capture, self._scene, self._shape = config.seed, capture, scene, shape
        self.bar_px = max(8, round(shape[0] * 0.045))
        self._exposure = float(rng.uniform(0.86, 1.14))
        hour = capture.captured_at.hour + capture.captured_at.minute / 60
        golden = max(0.0, 1 - min(abs(hour - 6.5), abs(hour - 18.5)) / 2.0)
        self._tint = np.array([1 + 0.07 * golden, 1.0, 1 - 0.11 * golden]) * np.array(scene.white_balance)
        self._gamma = float(rng.uniform(0.9, 1.15))
        self._noise = float(rng.choice([4.0, 6.0]) if capture.night else rng.choice([1.5, 2.5]))
        self._flash = _flash_map(rng, shape) if capture.night else None
        self._celsius = int(rng.integers(8, 17) if capture.night else rng.integers(16, 34))
        self._drift = rng.uniform(0, 1, 2)
        self._stamped: tuple[int, U8] | None = None

    def expose(self, frame: U8, into_s: float) -> U8:
        """The frame as the camera writes it; ``frame`` is used up."""
        cloud = 1 + 0.03 * np.sin(2 * np.pi * (into_s / 14 + self._drift[0])) + 0.004 * self._rng.standard_normal()
        if self._scene.blur_px > 0.3 * self._shape[0] / 360:
            frame = np.asarray(cv2.GaussianBlur(frame, (3, 3), self._scene.blur_px), np.uint8)
        top, left = self._rng.integers(0, 96, 2)
        bank = _noise_bank(self._seed, self._noise, self._shape, 1 if self._capture.night else 3)
        noise = bank[top : top + self._shape[0], left : left + self._shape[1]]
        curve = (np.arange(256) / 255) ** self._gamma * 255 * self._exposure
        if self._flash is None:
            table = np.clip(curve[:, None] * cloud * self._tint[None, :], 0, 255).astype(np.uint8)[None]
            lit = cv2.LUT(frame, table)
            picture = np.asarray(cv2.add(lit, noise, dtype=cv2.CV_8U), np.uint8)
        else:
            grey = cv2.LUT(cv2.transform(frame, _INFRARED), np.clip(curve * 1.15, 0, 255).astype(np.uint8))
            lit = cv2.multiply(grey, self._flash, scale=cloud / 200)
            noisy = cv2.add(lit, noise[..., 0], dtype=cv2.CV_8U)
            picture = np.asarray(cv2.cvtColor(noisy, cv2.COLOR_GRAY2RGB), np.uint8)
        self._stamp(picture, into_s)
        return picture

    def _stamp(self, picture: U8, into_s: float) -> None:
        second = int(into_s)
        if self._stamped is None or self._stamped[0] != second:
            bar = np.zeros((self.bar_px, self._shape[1], 3), np.uint8)
            clock = self._capture.captured_at + timedelta(seconds=second)
            text = f"{self._scene.camera_id.upper()}  {self._celsius}C   {clock:%Y-%m-%d  %H:%M:%S}"
            size = self.bar_px / 34
            cv2.putText(
                bar,
                text,
                (self.bar_px // 2, round(self.bar_px * 0.74)),
                cv2.FONT_HERSHEY_SIMPLEX,
                size,
                (235,) * 3,
                1,
                cv2.LINE_AA,
            )
            self._stamped = (second, bar)
        picture[-self.bar_px :] = self._stamped[1]


def _flash_map(rng: np.random.Generator, shape: tuple[int, int]) -> U8:
    """Light of the infra-red flash: bright in the middle and near, dark at the edges and far; (H, W) uint8."""
    y = np.linspace(0, 1, shape[0], dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, shape[1], dtype=np.float32)[None, :] - np.float32(rng.uniform(-0.25, 0.25))
    near = 0.30 + 0.70 * np.clip((y - 0.12) / 0.5, 0, 1)
    light = near * (0.42 + 0.58 * np.exp(-1.1 * x**2)) * (1 + 0.03 * smooth_noise(rng, shape, (4, 6)))
    return np.asarray(np.clip(light * 235, 0, 255), np.uint8)
