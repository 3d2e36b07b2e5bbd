"""Bodies: the parts of an animal at rest, cut out of its coat.

In: an ``Individual`` and a flank. Out: ``Puppet``: parts with an outline, a joint and a shaded RGBA picture, to be
turned about their joints by ``poses`` and laid over each other. Coordinates are those of the coat: the animal faces
right, the trunk runs from x = 0 to 1, the ground is y = 0. A rendered mesh would turn its head towards the camera
too; pasted parts are fifty times cheaper and keep every mark where it belongs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from wildray.simulate.coats import REGION, U8, flank_texture
from wildray.simulate.randomness import F32
from wildray.simulate.species import Form, Individual

SIDES = ("far", "near")
LEVELS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.17)
"""Sizes at which a part is kept, so that drawing it never shrinks it by more than a third (which would flicker)."""


@dataclass(frozen=True)
class Part:
    """A stiff piece of a body at rest.

    Attributes:
        name: Its name, by which a pose turns it.
        parent: The part that it moves with, or None for the trunk.
        pivot: The joint, in units.
        outline: (N, 2) float32 in units.
        far: Whether it is on the side turned away, and darker.
        fade: Distance from the joint, in units, within which it melts into the part below it.
        rgb: A colour of its own instead of the coat (horns, hoofs), or None.
    """

    name: str
    parent: str | None
    pivot: tuple[float, float]
    outline: F32
    far: bool = False
    fade: float = 0.0
    rgb: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Sprite:
    """The picture of a part: premultiplied (h, w, 4) uint8, of which pixel (0, 0) lies at ``origin`` in units."""

    pixels: U8
    origin: tuple[float, float]
    px_per_unit: tuple[float, float]


@dataclass(frozen=True)
class Puppet:
    """All parts of one flank of an individual in the order in which they are laid down, and their pictures by level."""

    parts: tuple[Part, ...]
    sprites: tuple[tuple[Sprite, ...], ...]


def limb(start: tuple[float, float], end: tuple[float, float], start_radius: float, end_radius: float) -> F32:
    """Outline of a rounded taper: the hull of two circles; (N, 2) float32."""
    angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    ring = np.stack([np.cos(angle), np.sin(angle)], -1)
    points = np.concatenate([ring * start_radius + start, ring * end_radius + end]).astype(np.float32)
    return np.asarray(cv2.convexHull(points), np.float32).reshape(-1, 2)


def smooth_outline(points: list[tuple[float, float]]) -> F32:
    """A closed Catmull-Rom curve through points; (8 N, 2) float32."""
    p1 = np.array(points)
    p0, p2, p3 = np.roll(p1, 1, 0), np.roll(p1, -1, 0), np.roll(p1, -2, 0)
    t = np.linspace(0, 1, 8, endpoint=False)[None, :, None]
    a, b, c, d = (p[:, None] for p in (p0, p1, p2, p3))
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    return np.asarray(curve.reshape(-1, 2), np.float32)


def along(start: tuple[float, float], angle_deg: float, length: float) -> tuple[float, float]:
    """The point at a distance from a start; angles above the horizontal are positive."""
    angle = np.deg2rad(angle_deg)
    return float(start[0] + length * np.cos(angle)), float(start[1] - length * np.sin(angle))


def quadruped_parts(form: Form) -> tuple[Part, ...]:
    """The parts of a four-legged body."""
    leg, depth, rump = form.leg, form.depth, -form.leg - form.depth + form.slope
    back = -leg - depth
    trunk = smooth_outline(
        [
            (-0.02, rump + 0.42 * depth), (0.02, rump + 0.12 * depth), (0.14, rump), (0.34, (rump + back) / 2 + 0.02),
            (0.6, back + 0.02), (0.8, back - 0.02), (0.95, back + 0.16 * depth), (1.03, back + 0.5 * depth),
            (0.98, back + 0.82 * depth), (0.85, -leg + 0.01), (0.6, -leg + 0.02), (0.36, -leg - 0.03),
            (0.2, -leg - 0.1), (0.05, -leg - 0.06),
        ]
    )  # fmt: skip
    parts = [_leg(form, name, "far") for name in ("hind", "fore")]
    flat = [piece for pieces in parts for piece in pieces]
    tail_base = (0.0, rump + 0.16 * depth)
    tip = along(tail_base, 180 + 62, form.tail)
    flat.append(Part("tail", "trunk", tail_base, limb(tail_base, tip, form.tail_width, form.tail_width * 1.1)))
    flat.append(Part("trunk", None, (0.5, -leg - 0.5 * depth), trunk))
    flat.extend(_head(form, back))
    flat.extend(piece for name in ("hind", "fore") for piece in _leg(form, name, "near"))
    return tuple(flat)


def _leg(form: Form, name: str, side: str) -> list[Part]:
    hind, far = name == "hind", side == "far"
    x = (0.13 if hind else 0.86) + (0.045 if far else 0.0)
    hip = (x, -form.leg - (0.38 if hind else 0.26) * form.depth + (form.slope * 0.6 if hind else 0.0))
    knee = (x + (-0.02 if hind else 0.0), -form.leg * 0.5)
    foot = (x + (0.0 if hind else 0.01), -form.limb_width * 0.5)
    width = form.limb_width
    thigh = limb(hip, knee, width * (2.2 if hind else 1.6), width * 0.8)
    toe = (foot[0] + width * 0.9, foot[1] + width * 0.1)
    lower = np.concatenate([limb(knee, foot, width * 0.78, width * 0.48), limb(foot, toe, width * 0.5, width * 0.4)])
    hull = np.asarray(cv2.convexHull(lower), np.float32).reshape(-1, 2)
    return [
        Part(f"{name}_{side}_lower", f"{name}_{side}_upper", knee, hull, far=far),
        Part(f"{name}_{side}_upper", "trunk", hip, thigh, far=far, fade=0.0 if far else width * 2.0),
    ]


def _head(form: Form, back: float) -> list[Part]:
    base = (0.85, back + 0.4 * form.depth)
    end = along(base, form.neck_angle, form.neck)
    skull_radius = max(form.neck_width * 0.72, form.head * 0.38)
    muzzle = along(end, -32, form.head)
    skull = np.concatenate([limb(end, along(end, -32, form.head * 0.35), skull_radius, skull_radius * 0.85)])
    head = np.concatenate([skull, limb(end, muzzle, skull_radius * 0.7, form.muzzle)])
    outline = np.asarray(cv2.convexHull(head.astype(np.float32)), np.float32).reshape(-1, 2)
    ear_base = along(end, 110, skull_radius * 0.75)
    ear = limb(ear_base, along(ear_base, 118, form.ear), form.ear * 0.36, form.ear * 0.12)
    parts = [Part("ear_far", "head", ear_base, ear + np.array([0.03, 0.0], np.float32), far=True)]
    if form.horn:
        top = along(ear_base, 76, form.horn)
        parts.append(Part("horn", "head", ear_base, limb(ear_base, top, 0.022, 0.006), rgb=(62, 54, 46)))
    neck = limb(base, end, form.neck_width * 1.25, form.neck_width * 0.75)
    parts.append(Part("neck", "trunk", base, neck, fade=form.neck_width * 0.9))
    if form.mane:
        ridge = [along(base, 138, form.neck_width * 1.2), along(end, 138, form.neck_width * 0.8)]
        parts.append(Part("mane", "neck", base, limb(ridge[0], ridge[1], 0.035, 0.03), rgb=(70, 54, 42)))
    parts.append(Part("head", "neck", end, outline))
    eye = along(end, -4, form.head * 0.34)
    parts.append(Part("eye", "head", end, limb(eye, eye, 0.018, 0.018), rgb=(18, 14, 12)))
    nose = along(end, -30, form.head + form.muzzle * 0.4)
    parts.append(Part("nose", "head", end, limb(nose, nose, 0.024, 0.024), rgb=(34, 28, 26)))
    parts.append(Part("ear_near", "head", ear_base, ear))
    return parts


def insect_parts(form: Form) -> tuple[Part, ...]:
    """The parts of a beetle seen from the side: wing case, neck shield, head, feelers and six legs."""
    leg, depth = form.leg, form.depth
    case = smooth_outline(
        [
            (0.0, -leg - 0.12 * depth), (0.05, -leg - 0.5 * depth), (0.25, -leg - 0.9 * depth), (0.5, -leg - depth),
            (0.75, -leg - 0.9 * depth), (0.96, -leg - 0.55 * depth), (1.0, -leg - 0.1 * depth), (0.5, -leg + 0.05),
        ]
    )  # fmt: skip
    neck_end = (0.98 + form.neck, -leg - 0.3 * depth)
    shield = limb((0.98, -leg - 0.36 * depth), neck_end, 0.33 * depth, 0.24 * depth)
    head = limb(neck_end, along(neck_end, -20, form.head), 0.2 * depth, 0.12 * depth)
    feeler_base = along(neck_end, 30, form.head * 0.8)
    parts = [piece for number in range(3) for piece in _insect_leg(form, number, "far")]
    parts.append(Part("trunk", None, (0.5, -leg - 0.5 * depth), case))
    for side, angle in (("far", 52), ("near", 34)):
        feeler = limb(feeler_base, along(feeler_base, angle, 0.34), 0.012, 0.009)
        parts.append(Part(f"ear_{side}", "head", feeler_base, feeler, rgb=(52, 40, 32)))
    parts.append(Part("head", "neck", neck_end, head))
    parts.append(Part("neck", "trunk", (0.98, -leg - 0.3 * depth), shield))
    eye = along(neck_end, 20, form.head * 0.6)
    parts.append(Part("eye", "head", neck_end, limb(eye, eye, 0.022, 0.022), rgb=(16, 12, 10)))
    parts.extend(piece for number in range(3) for piece in _insect_leg(form, number, "near"))
    return tuple(parts)


def _insect_leg(form: Form, number: int, side: str) -> list[Part]:
    far = side == "far"
    hip = (0.3 + 0.26 * number + (0.05 if far else 0.0), -form.leg + 0.0)
    knee = (hip[0] + (-0.1, 0.0, 0.1)[number], -form.leg * 0.85)
    foot = (hip[0] + (-0.16, 0.0, 0.16)[number], -form.limb_width)
    width, rgb = form.limb_width, (66, 50, 38)
    return [
        Part(
            f"leg{number}_{side}_lower",
            f"leg{number}_{side}_upper",
            knee,
            limb(knee, foot, width, width * 0.6),
            far=far,
            rgb=rgb,
        ),
        Part(f"leg{number}_{side}_upper", "trunk", hip, limb(hip, knee, width * 1.4, width), far=far, rgb=rgb),
    ]


_PARTS: dict[str, Callable[[Form], tuple[Part, ...]]] = {"quadruped": quadruped_parts, "insect": insect_parts}


@lru_cache(maxsize=96)
def puppet(animal: Individual, flank: str, px_per_unit: int) -> Puppet:
    """The puppet of an individual's flank, cut at ``px_per_unit`` pixels of the trunk's length and smaller."""
    texture = flank_texture(animal, flank, px_per_unit)
    parts = _PARTS[animal.form.kind](animal.form)
    return Puppet(parts, tuple(_sprites(part, texture, px_per_unit) for part in parts))


def _sprites(part: Part, texture: U8, px_per_unit: int) -> tuple[Sprite, ...]:
    low = np.floor((part.outline.min(0) - REGION[:2]) * px_per_unit).astype(int) - 4
    high = np.ceil((part.outline.max(0) - REGION[:2]) * px_per_unit).astype(int) + 5
    low, high = np.maximum(low, 0), np.minimum(high, texture.shape[1::-1])
    mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    points = (part.outline - np.array(REGION[:2], np.float32)) * px_per_unit - low
    cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    cut = texture[low[1] : high[1], low[0] : high[0]].astype(np.float32)
    if part.rgb is not None:
        cut[:] = part.rgb
    depth = cv2.distanceTransform((mask > 127).astype(np.uint8), cv2.DIST_L2, 3) / (0.07 * px_per_unit)
    height = np.linspace(0, 1, mask.shape[0], dtype=np.float32)[:, None]
    shade = (0.80 + 0.20 * np.sqrt(np.clip(depth, 0, 1))) * (1.08 - 0.22 * height)
    alpha = mask.astype(np.float32) / 255
    if part.fade:
        y, x = np.mgrid[low[1] : high[1], low[0] : high[0]] / px_per_unit
        away = np.hypot(x + REGION[0] - part.pivot[0], y + REGION[1] - part.pivot[1]) / part.fade
        shade = 0.95 + (shade - 0.95) * np.clip(away - 0.4, 0, 1)
        alpha *= np.clip(away * 1.6 - 0.6, 0, 1).astype(np.float32)
    shade *= 0.66 if part.far else 1.0
    color = np.clip(cut * shade[..., None], 0, 255) * alpha[..., None]
    full = np.dstack([color, alpha * 255])
    origin = (REGION[0] + low[0] / px_per_unit, REGION[1] + low[1] / px_per_unit)
    sprites = []
    for level in LEVELS:
        size = (max(2, round(full.shape[1] * level)), max(2, round(full.shape[0] * level)))
        small = full if level == 1 else cv2.resize(full, size, interpolation=cv2.INTER_AREA)
        scale = (px_per_unit * size[0] / full.shape[1], px_per_unit * size[1] / full.shape[0])
        sprites.append(Sprite(np.round(small).astype(np.uint8), origin, scale))
    return tuple(sprites)
