"""Poses: how the parts of a body turn when it walks, grazes and rests.

In: a ``Pose`` (where in the gait, how far the head is down, how far it lies). Out: an affine per part, from the body
at rest to the body as posed. Angles are degrees, positive turns the nose down. Feet follow the distance walked, so
that they do not slide.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wildray.simulate.bodies import Part
from wildray.simulate.randomness import F64
from wildray.simulate.species import Form

_SWING = 21.0
"""Degrees by which a leg swings each way in a full stride."""
_LEG_PHASE = {"hind_near": 0.0, "fore_near": 0.25, "hind_far": 0.5, "fore_far": 0.75}
"""The four-beat walk of mammals: hind, then fore of the same side, then the other side."""


@dataclass(frozen=True)
class Pose:
    """The state of a body.

    Attributes:
        stride: Distance walked, in units of the trunk's length.
        effort: 0 standing, 1 striding out.
        head_down: 0 up, 1 at the ground.
        lying: 0 standing, 1 lying.
        breath: Phase of breathing in cycles.
        lean: Sideways shift of the body over its feet, as a share of the height above them.
        ear_deg, tail_deg, look_deg: Turns of ears, tail and neck.
    """

    stride: float = 0.0
    effort: float = 0.0
    head_down: float = 0.0
    lying: float = 0.0
    breath: float = 0.0
    lean: float = 0.0
    ear_deg: float = 0.0
    tail_deg: float = 0.0
    look_deg: float = 0.0


def part_transforms(form: Form, parts: tuple[Part, ...], pose: Pose) -> list[F64]:
    """Where every part goes; one (3, 3) affine per part, from units at rest to units as posed."""
    angles = _insect_angles(pose, form) if form.kind == "insect" else _quadruped_angles(pose, form)
    by_name = {part.name: part for part in parts}
    done: dict[str, F64] = {}

    def place(name: str) -> F64:
        if name not in done:
            part = by_name[name]
            parent = _trunk(form, pose) if part.parent is None else place(part.parent)
            done[name] = parent @ _turn(part.pivot, angles.get(name, 0.0))
        return done[name]

    return [place(part.name) for part in parts]


def _trunk(form: Form, pose: Pose) -> F64:
    insect = form.kind == "insect"
    drop = (form.leg * (0.45 if insect else 1.0) - (0.0 if insect else 0.035)) * pose.lying
    bob = 0.012 * pose.effort * np.sin(4 * np.pi * pose.stride / stride_length(form))
    swell = 1 + 0.03 * np.sin(2 * np.pi * pose.breath)
    middle = -form.leg
    return np.array([[1, -pose.lean, 0], [0, swell, middle * (1 - swell) + drop + bob], [0, 0, 1]], np.float64)


def stride_length(form: Form) -> float:
    """Distance of a full cycle of the gait in units: twice the arc of a foot on the ground."""
    reach = form.leg + (0.0 if form.kind == "insect" else 0.32 * form.depth)
    return float(4 * reach * np.sin(np.deg2rad(_SWING)))


def _quadruped_angles(pose: Pose, form: Form) -> dict[str, float]:
    cycle = pose.stride / stride_length(form)
    neck = pose.head_down * (form.neck_angle + 52) + pose.look_deg + 3.0 * pose.effort * np.sin(4 * np.pi * cycle)
    angles = {
        "neck": neck,
        "head": -0.6 * pose.head_down * (form.neck_angle + 52) - 0.5 * pose.look_deg,
        "ear_near": pose.ear_deg,
        "ear_far": 0.6 * pose.ear_deg,
        "tail": pose.tail_deg + 42 * pose.lying,
    }
    for name, offset in _LEG_PHASE.items():
        phase = (cycle + offset) % 1.0
        lift = np.sin(2 * np.pi * (phase - 0.5)) if phase > 0.5 else 0.0
        # on the ground a foot goes back as fast as the body goes forth
        upper = -_SWING * pose.effort * (1 - 4 * phase if phase < 0.5 else np.cos(2 * np.pi * phase))
        lower = 34 * pose.effort * lift
        fold_upper, fold_lower = (-76.0, 150.0) if name.startswith("hind") else (-66.0, 142.0)
        angles[f"{name}_upper"] = (1 - pose.lying) * upper + pose.lying * fold_upper
        angles[f"{name}_lower"] = (1 - pose.lying) * lower + pose.lying * fold_lower
    return {name: float(angle) for name, angle in angles.items()}


def _insect_angles(pose: Pose, form: Form) -> dict[str, float]:
    cycle = pose.stride / stride_length(form)
    angles = {
        "neck": 10 * pose.head_down,
        "head": 16 * pose.head_down + 0.3 * pose.look_deg,
        "ear_near": 0.8 * pose.ear_deg + 1.2 * pose.tail_deg,
        "ear_far": -0.6 * pose.ear_deg + pose.tail_deg,
    }
    for number in range(3):
        for side in ("near", "far"):
            phase = (cycle + 0.5 * ((number + (side == "far")) % 2)) % 1.0
            swing = -_SWING * pose.effort * np.cos(2 * np.pi * phase)
            spread = (20.0, 0.0, -20.0)[number] * pose.lying
            angles[f"leg{number}_{side}_upper"] = float(swing + spread)
            angles[f"leg{number}_{side}_lower"] = float(0.4 * swing + spread)
    return angles


def _turn(pivot: tuple[float, float], angle_deg: float) -> F64:
    cos, sin = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    x, y = pivot
    return np.array([[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y], [0, 0, 1]], np.float64)
