"""A camera-trap world with known individuals: real encoded videos and stills, and the truth about them.

``species`` says who lives there, ``coats`` and ``bodies`` what they look like, ``poses`` and ``behaviour`` how they
move, ``scenery``, ``plants`` and ``distractors`` what is around them, ``script`` who comes when. ``drawing``,
``rendering`` and ``exposure`` make frames, ``encoding`` files, ``labelled`` and ``truth`` the tables; ``stage`` runs it
all.
"""

from wildray.simulate.stage import SimulateResult, simulate

__all__ = ["SimulateResult", "simulate"]
