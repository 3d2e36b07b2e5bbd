"""What detectors call their classes, in wildray's words: animal, person, vehicle, or the detector's own word.

In: a class name. Out: the category of its boxes. People in frame must never be lost silently, so every common word for
them becomes ``person``, which is how users filter for privacy.
"""

from __future__ import annotations

from collections.abc import Sequence

MEGADETECTOR_CLASSES = ("animal", "person", "vehicle")

_WORDS = {
    "person": ("person", "persons", "people", "human", "humans", "homo sapiens", "pedestrian"),
    "vehicle": ("vehicle", "vehicles", "car", "truck", "bus", "motorcycle", "motorbike"),
    "animal": ("animal", "animals"),
}
_CATEGORY_OF = {word: category for category, words in _WORDS.items() for word in words}


def category_of(class_name: str) -> str:
    """The category of a class: ``"Human"`` is ``"person"``, ``"Okapi"`` is ``"okapi"``."""
    word = " ".join(class_name.lower().split())
    return _CATEGORY_OF.get(word, word)


def default_classes(num_classes: int) -> Sequence[str] | None:
    """The class names of a detector that does not say them: MegaDetector's where there are three, animal where one."""
    return {1: ("animal",), 3: MEGADETECTOR_CLASSES}.get(num_classes)
