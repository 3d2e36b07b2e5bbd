"""Behaviour: where an animal is and what it does at a time.

In: an ``Actor``, which is an individual and its stretches of walking, grazing and resting. Out: its ``Placement`` at
a time. Everything is a closed function of time, so that a frame can be drawn without the frames before it and
repeated triggers minutes apart agree. Stepping a simulation would need every clip of a visit in one process.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from wildray.simulate.poses import Pose
from wildray.simulate.species import Individual

WALKING, GRAZING, RESTING = "walking", "grazing", "resting"


@dataclass(frozen=True)
class Stretch:
    """A stretch of one activity.

    Attributes:
        activity: ``walking``, ``grazing`` or ``resting``.
        start_s, end_s: Seconds from the start of the visit.
        x0, x1: Middle of the trunk at start and end, in widths of the frame.
        flank: The flank that is seen.
    """

    activity: str
    start_s: float
    end_s: float
    x0: float
    x1: float
    flank: str


@dataclass(frozen=True)
class Actor:
    """An animal in a visit.

    Attributes:
        animal: Who.
        depth: 0 far, 1 near: how far down in the frame it stands, and how large it is.
        phase: In [0, 1): where its breathing, ears and glances begin.
        stretches: What it does, in order of time; before, after and between them it is not there.
    """

    animal: Individual
    depth: float
    phase: float
    stretches: tuple[Stretch, ...]


@dataclass(frozen=True)
class Placement:
    """Where an actor stands at a time.

    Attributes:
        x: Middle of the trunk in widths of the frame.
        width_factor: Foreshortening while it turns round, in (0, 1].
    """

    x: float
    flank: str
    activity: str
    pose: Pose
    width_factor: float


def trunk_length(actor: Actor, *, macro: bool) -> float:
    """Length of the trunk in widths of the frame: 0.11 far away to 0.22 near."""
    form = actor.animal.form
    return form.size * ((0.19 + 0.06 * actor.depth) if macro else (0.115 + 0.10 * actor.depth))


def placement(actor: Actor, time_s: float, *, macro: bool) -> Placement | None:
    """Where the actor is at a time of the visit, or None while it is not there."""
    current = next((s for s in actor.stretches if s.start_s <= time_s < s.end_s), None)
    if current is None:
        return None
    into, left = time_s - current.start_s, current.end_s - time_s
    share = into / (current.end_s - current.start_s)
    x = current.x0 + (current.x1 - current.x0) * share
    idle = _idle_pose(actor, time_s)
    if current.activity == WALKING:
        distance = abs(x - current.x0) / trunk_length(actor, macro=macro)
        pose = replace(idle, stride=distance + actor.phase, effort=_ease(into / 0.4) * _ease(left / 0.4))
    elif current.activity == GRAZING:
        period = 8 + 6 * actor.phase
        glance = ((time_s / period + actor.phase) % 1.0) * period
        up = _ease(glance / 0.6) * _ease((2.4 - glance) / 0.6)
        pose = replace(idle, stride=actor.phase, head_down=_ease(into / 0.9) * _ease(left / 0.9) * (1 - 0.85 * up))
    else:
        # a resting animal nods and looks about more than one that feeds
        nod = 0.16 * (1 + np.sin(2 * np.pi * (0.061 * time_s + actor.phase)))
        pose = replace(idle, lying=1.0, look_deg=1.7 * idle.look_deg, head_down=float(nod))
    return Placement(x, current.flank, current.activity, pose, _turning(actor, current, into))


def _turning(actor: Actor, current: Stretch, into_s: float) -> float:
    """Foreshortening in the half second after the flank seen has changed."""
    before = next((s for s in actor.stretches if s.end_s == current.start_s), None)
    if before is None or before.flank == current.flank:
        return 1.0
    return float(0.35 + 0.65 * _ease(into_s / 0.5))


def _idle_pose(actor: Actor, time_s: float) -> Pose:
    """Breathing, shifting weight, ears, tail and head of an animal that stays where it is."""
    beat = time_s + 97.0 * actor.phase
    flick = max(0.0, np.sin(2 * np.pi * 0.23 * beat) - 0.8) * 5
    return Pose(
        breath=0.45 * beat,
        lean=float(0.045 * np.sin(2 * np.pi * 0.083 * beat) + 0.02 * np.sin(2 * np.pi * 0.21 * beat)),
        ear_deg=float(34 * flick * np.sin(2 * np.pi * 3.1 * beat)),
        tail_deg=float(14 * np.sin(2 * np.pi * 0.4 * beat) + 7 * np.sin(2 * np.pi * 1.1 * beat)),
        look_deg=float(7 * np.sin(2 * np.pi * 0.11 * beat) + 3 * np.sin(2 * np.pi * 0.31 * beat)),
    )


def _ease(share: float) -> float:
    """0 to 1 with level ends."""
    t = min(1.0, max(0.0, share))
    return t * t * (3 - 2 * t)
