"""The script: who comes to which camera when, and what the camera then records.

In: the configuration. Out: every ``Capture`` of the reserve, as small picklable values in order of camera and time. A
visit is one or several animals of a species at a camera; it gives one triggered clip or several a few seconds apart,
a burst of stills, or a time-lapse series, so that the same animals are seen again after seconds and after minutes.
No animal is at two places at once: visits begin in half hours of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from wildray.config import SimulateConfig
from wildray.errors import ConfigError
from wildray.simulate.behaviour import GRAZING, RESTING, WALKING, Actor, Stretch
from wildray.simulate.randomness import stream
from wildray.simulate.scenery import camera_name
from wildray.simulate.species import INSECT, Individual, population

WORLD_START = datetime(2024, 3, 1, tzinfo=UTC)
_SLOT_S = 1800
_NIGHT_SLOTS = (*range(12), *range(38, 48))
"""Half hours of the day from 19:00 to 6:00."""
BURST = (3, 1.0)
"""Stills of a burst and the seconds between them."""
TIMELAPSE = (6, 60.0)
"""Stills of a time-lapse series and the seconds between them."""


@dataclass(frozen=True)
class Capture:
    """One file that a camera writes.

    Attributes:
        name: Path under ``media/`` (or ``labelled/images/``) with ``/``.
        camera: Number of the camera.
        macro: Whether that camera looks closely at a log.
        captured_at: When it begins, UTC.
        offset_s: Seconds from the start of the visit.
        num_frames: 1 for a still.
        night: Whether it is filmed in infra-red.
        actors: Who comes by in the visit.
    """

    name: str
    camera: int
    macro: bool
    captured_at: datetime
    offset_s: float
    num_frames: int
    night: bool
    actors: tuple[Actor, ...]

    @property
    def is_video(self) -> bool:
        """Whether it is a video and not a still."""
        return self.name.endswith(".mp4")


def inhabitants(config: SimulateConfig) -> tuple[Individual, ...]:
    """Everybody, the held-out last."""
    count = config.num_individuals or max(36, round(1.25 * config.num_videos))
    return population(
        config.seed,
        num_individuals=count,
        num_held_out=config.labelled_individuals,
        num_species=config.num_species,
    )


def macro_cameras(config: SimulateConfig) -> range:
    """Numbers of the cameras that look closely at a log: the last third, where there are insects.

    Raises:
        ConfigError: There are insects and fewer than four cameras, two of each kind.
    """
    if config.num_species <= INSECT:
        return range(0)
    if config.num_cameras < 4:
        raise ConfigError(
            f"simulate.num_cameras: got {config.num_cameras} with {config.num_species} species, expected at least "
            "4: the insect lives at macro cameras of its own. "
            f"Set simulate.num_cameras 4 or simulate.num_species {INSECT}."
        )
    return range(config.num_cameras - max(2, config.num_cameras // 3), config.num_cameras)


def cameras_of(config: SimulateConfig, species: int) -> list[int]:
    """Numbers of the cameras that a species comes to."""
    macro = macro_cameras(config)
    return [camera for camera in range(config.num_cameras) if (camera in macro) == (species == INSECT)]


class VisitCalendar:
    """Half hours that are still free, so that visits never overlap."""

    def __init__(self, rng: np.random.Generator, num_visits: int) -> None:
        self._rng, self._days, self._taken = rng, num_visits // 8 + 2, set[int]()

    def take(self, *, night: bool) -> datetime:
        """The start of a visit by night or by day."""
        day_slots = [slot for slot in range(48) if (slot in _NIGHT_SLOTS) == night]
        while True:
            slot = int(self._rng.integers(self._days)) * 48 + int(self._rng.choice(day_slots))
            if slot not in self._taken:
                self._taken.add(slot)
                return WORLD_START + timedelta(seconds=slot * _SLOT_S + int(self._rng.integers(300)))


class _Cast:
    """Deals out animals so that everybody is filmed before anybody is filmed twice more than others."""

    def __init__(self, rng: np.random.Generator, animals: list[Individual]) -> None:
        self._rng = rng
        self._species = sorted({animal.species for animal in animals})
        self._by_species = {s: [animal for animal in animals if animal.species == s] for s in self._species}
        self._uses = dict.fromkeys((animal.identity for animal in animals), 0)

    def choose(self, count: int) -> list[Individual]:
        """Animals of the species that was filmed least."""

        def mean_uses(species: int) -> float:
            group = self._by_species[species]
            return sum(self._uses[animal.identity] for animal in group) / len(group)

        order = self._rng.permutation(len(self._species))
        species = min((self._species[i] for i in order), key=mean_uses)
        group = [self._by_species[species][i] for i in self._rng.permutation(len(self._by_species[species]))]
        chosen = sorted(group, key=lambda animal: self._uses[animal.identity])[:count]
        for animal in chosen:
            self._uses[animal.identity] += 1
        return chosen


def captures(config: SimulateConfig) -> list[Capture]:
    """Every video and still of the cameras, in order of camera and time."""
    rng = stream(config.seed, "script")
    num_empty = round(config.num_videos * config.empty_share)
    visits = _clip_counts(rng, config.num_videos - num_empty)
    kinds = [("clips", count) for count in visits] + [("empty", 1)] * num_empty
    kinds += [("burst", 1)] * round(config.num_videos * config.bursts)
    kinds += [("timelapse", 1)] * round(config.num_videos * config.timelapses)
    calendar = VisitCalendar(rng, len(kinds))
    cast = _Cast(rng, [animal for animal in inhabitants(config) if not animal.held_out])
    result: list[Capture] = []
    for kind, count in kinds:
        result.extend(_visit(config, rng, calendar, cast, kind, count))
    return sorted(result, key=lambda capture: (capture.camera, capture.captured_at))


def _clip_counts(rng: np.random.Generator, total: int) -> list[int]:
    """Videos of each visit: one, or up to four where the camera triggers again."""
    counts: list[int] = []
    while sum(counts) < total:
        counts.append(min(int(rng.choice([1, 2, 3, 4], p=[0.5, 0.3, 0.15, 0.05])), total - sum(counts)))
    return counts


def _visit(
    config: SimulateConfig, rng: np.random.Generator, calendar: VisitCalendar, cast: _Cast, kind: str, count: int
) -> list[Capture]:
    night = bool(rng.uniform() < config.night_share)
    start = calendar.take(night=night)
    length_s = config.clip_length.seconds
    offsets = {
        "clips": np.cumsum([0.0, *(length_s + rng.uniform(12, 40, count - 1))]).round().tolist(),
        "empty": [0.0],
        "burst": [BURST[1] * shot for shot in range(BURST[0])],
        "timelapse": [TIMELAPSE[1] * shot for shot in range(TIMELAPSE[0])],
    }[kind]
    animals = (
        [] if kind == "empty" else cast.choose(int(rng.integers(2, 5)) if rng.uniform() < config.herd_share else 1)
    )
    cameras = cameras_of(config, animals[0].species) if animals else list(range(config.num_cameras))
    camera = int(rng.choice(cameras))
    span_s = offsets[-1] + length_s
    still = kind in ("burst", "timelapse")
    suffix = ".jpg" if still else ".mp4"
    actors = tuple(
        _actor(rng, animal, number, len(animals), offsets, span_s, stays=still or (number == 0 and count > 1))
        for number, animal in enumerate(animals)
    )
    return [
        Capture(
            name=f"{camera_name(camera)}/{start + timedelta(seconds=offset):%Y%m%d_%H%M%S}{suffix}",
            camera=camera,
            macro=camera in macro_cameras(config),
            captured_at=start + timedelta(seconds=offset),
            offset_s=offset,
            num_frames=1 if still else max(1, round(length_s * config.fps)),
            night=night,
            actors=actors,
        )
        for offset in offsets
    ]


def _actor(
    rng: np.random.Generator,
    animal: Individual,
    number: int,
    group: int,
    offsets: list[float],
    span_s: float,
    *,
    stays: bool,
) -> Actor:
    depth = float((number + rng.uniform(0.1, 0.9)) / group)
    roll = rng.uniform()
    if not stays and roll < 0.6:
        stretches = _passing(rng, float(rng.choice(offsets)), depth)
    elif roll < 0.75:
        x, flank = rng.uniform(0.2, 0.8), _flank(rng)
        stretches = [Stretch(RESTING, -60.0, span_s + 60.0, x, x, flank)]
    else:
        stretches = _staying(rng, span_s, (number + 0.5) / group)
    return Actor(animal, depth, float(rng.uniform()), tuple(stretches))


def _flank(rng: np.random.Generator) -> str:
    return "right" if rng.uniform() < 0.5 else "left"


def _passing(rng: np.random.Generator, trigger_s: float, depth: float) -> list[Stretch]:
    """In at one side, perhaps a stop to graze, out at the other side."""
    right = rng.uniform() < 0.5
    begin, end = (-0.16, 1.25) if right else (1.16, -0.25)
    speed = rng.uniform(0.10, 0.17) * (0.8 + 0.4 * depth)
    flank = "right" if right else "left"
    start = trigger_s - rng.uniform(-0.3, 2.0)
    if rng.uniform() < 0.5:
        reach = abs(end - begin) / speed
        return [Stretch(WALKING, start, start + reach, begin, end, flank)]
    middle = rng.uniform(0.3, 0.7)
    arrive = start + abs(middle - begin) / speed
    leave = arrive + rng.uniform(2.5, 7.0)
    return [
        Stretch(WALKING, start, arrive, begin, middle, flank),
        Stretch(GRAZING, arrive, leave, middle, middle, flank),
        Stretch(WALKING, leave, leave + abs(end - middle) / speed, middle, end, flank),
    ]


def _staying(rng: np.random.Generator, span_s: float, place: float) -> list[Stretch]:
    """Grazing with a few steps now and then, for the whole visit."""
    time_s, x = -float(rng.uniform(4, 12)), float(np.clip(0.15 + 0.7 * place + rng.uniform(-0.12, 0.12), 0.15, 0.85))
    flank = _flank(rng)
    stretches: list[Stretch] = []
    while time_s < span_s + 1:
        end = time_s + rng.uniform(5, 16)
        stretches.append(Stretch(GRAZING, time_s, end, x, x, flank))
        step = rng.uniform(0.03, 0.14) * (1 if rng.uniform() < 0.5 else -1)
        target = float(np.clip(x + step, 0.12, 0.88))
        if abs(target - x) > 0.02:
            flank = "right" if target > x else "left"
            time_s = end + abs(target - x) / 0.09
            stretches.append(Stretch(WALKING, end, time_s, x, target, flank))
            x = target
        else:
            time_s = end
    return stretches
