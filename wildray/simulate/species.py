"""Who lives in the reserve: species, and individuals with their own build and coat.

In: the seed and counts. Out: ``Individual`` values, small and picklable; pictures of them are made elsewhere.
All species share the tawny base colour and single animals vary in it by about as much as the light does, so that a
mean colour names nobody: an individual is known by the layout, size and density of its marks. Recolouring one
template per animal would be simpler and would let a colour histogram win.
"""

from __future__ import annotations

from dataclasses import dataclass

from wildray.simulate.randomness import stream

MOT_FIRST_ID = 1
"""MOT files count identities from 1."""


@dataclass(frozen=True)
class Form:
    """Proportions of a body, in units of the trunk's length; angles in degrees above the horizontal.

    Attributes:
        kind: ``quadruped`` or ``insect``.
        size: Trunk's length relative to the other species at the same distance.
    """

    kind: str
    size: float
    leg: float
    depth: float
    slope: float
    neck: float
    neck_width: float
    neck_angle: float
    head: float
    muzzle: float
    ear: float
    tail: float
    tail_width: float
    limb_width: float
    horn: float = 0.0
    mane: bool = False


@dataclass(frozen=True)
class Species:
    """A species: its name, pattern and form."""

    name: str
    pattern: str
    form: Form


SPECIES = (
    Species(
        "spotted", "spots",
        Form("quadruped", 0.98, 0.50, 0.37, 0.09, 0.30, 0.15, 28, 0.24, 0.055, 0.10, 0.34, 0.035, 0.062),
    ),
    Species(
        "rosetted", "rosettes",
        Form("quadruped", 1.0, 0.40, 0.36, -0.02, 0.20, 0.15, 24, 0.20, 0.06, 0.065, 0.62, 0.036, 0.07),
    ),
    Species(
        "striped", "stripes",
        Form("quadruped", 0.92, 0.56, 0.40, 0.0, 0.42, 0.14, 46, 0.31, 0.06, 0.11, 0.40, 0.03, 0.056, mane=True),
    ),
    Species(
        "plain", "marks",
        Form("quadruped", 0.95, 0.58, 0.37, 0.02, 0.36, 0.11, 48, 0.25, 0.045, 0.12, 0.24, 0.035, 0.05, horn=0.26),
    ),
    Species(
        "insect", "fine_marks",
        Form("insect", 1.05, 0.26, 0.40, 0.0, 0.12, 0.10, 0, 0.14, 0.05, 0.0, 0.0, 0.0, 0.022),
    ),
)  # fmt: skip
INSECT = len(SPECIES) - 1


@dataclass(frozen=True)
class Individual:
    """One animal.

    Attributes:
        identity: Its name in every table.
        mot_id: Its number in MOT files, from 1.
        species: Index into ``SPECIES``.
        seed: Seed of the world, of which its coat is a function.
        build: Its own factors on leg, trunk depth, neck, head, tail and ear.
        base_rgb: Colour of the coat between the marks, 0 to 255.
        mark_rgb: Colour of the marks.
        mark_size: Factor on the size of the marks.
        mark_density: Factor on the number of marks.
        held_out: Whether it belongs to the labelled set and is never filmed.
    """

    identity: str
    mot_id: int
    species: int
    seed: int
    build: tuple[float, ...]
    base_rgb: tuple[float, float, float]
    mark_rgb: tuple[float, float, float]
    mark_size: float
    mark_density: float
    held_out: bool

    @property
    def form(self) -> Form:
        """The species' form with this animal's own build."""
        form = SPECIES[self.species].form
        leg, depth, neck, head, tail, ear = self.build
        return Form(
            **{
                **form.__dict__,
                "leg": form.leg * leg,
                "depth": form.depth * depth,
                "neck": form.neck * neck,
                "head": form.head * head,
                "tail": form.tail * tail,
                "ear": form.ear * ear,
            }
        )


def population(seed: int, *, num_individuals: int, num_held_out: int, num_species: int) -> tuple[Individual, ...]:
    """Everybody who lives in the reserve: first those who are filmed, then the held-out.

    Args:
        seed: Seed of the world.
        num_individuals: Animals that are filmed.
        num_held_out: Animals of the labelled set.
        num_species: Species are dealt out in turn, so that each has nearly as many.
    """
    return tuple(
        _individual(seed, number, species=number % num_species, held_out=number >= num_individuals)
        for number in range(num_individuals + num_held_out)
    )


def _individual(seed: int, number: int, *, species: int, held_out: bool) -> Individual:
    rng = stream(seed, "individual", number)
    build = (1.0, *(1.0 + 0.10 * rng.uniform(-1, 1, 5)))
    brightness, warmth = rng.uniform(0.9, 1.1), rng.uniform(-7, 7)
    base = (186 * brightness + warmth, 152 * brightness, 110 * brightness - warmth)
    pale = SPECIES[species].pattern == "marks"
    tone, red = rng.uniform(0.6, 1.5), rng.uniform(0.8, 1.5)
    mark = (238.0, 230.0, 212.0) if pale else (52 * tone * red, 38 * tone, 28 * tone)
    return Individual(
        identity=f"{SPECIES[species].name}-{number:03d}",
        mot_id=number + MOT_FIRST_ID,
        species=species,
        seed=seed,
        build=tuple(float(factor) for factor in build),
        base_rgb=base,
        mark_rgb=mark,
        mark_size=float(rng.uniform(0.65, 1.45)),
        mark_density=float(rng.uniform(0.7, 1.35)),
        held_out=held_out,
    )
