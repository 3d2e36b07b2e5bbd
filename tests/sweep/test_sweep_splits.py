import pytest

from wildray.errors import DataError
from wildray.sweep.spec import Split
from wildray.sweep.splits import divide

NAMES = [f"animal{number}" for number in range(40)]


def test_everybody_lies_in_one_part():
    parts = divide(NAMES, Split(), supervised=True)
    assert sorted(name for members in parts.values() for name in members) == sorted(NAMES)
    assert {name: len(members) for name, members in parts.items()} == {"train": 16, "validation": 12, "test": 12}


def test_without_supervised_methods_nobody_is_set_aside():
    assert len(divide(NAMES, Split(), supervised=False)["train"]) == 0
    assert len(divide(NAMES, Split(train=0.5), supervised=False)["train"]) == 20


def test_the_division_depends_on_names_and_seed_alone():
    parts = divide(NAMES, Split(), supervised=True)
    assert divide(NAMES[::-1], Split(), supervised=True) == parts
    assert divide(NAMES, Split(seed=1), supervised=True) != parts


def test_too_few_individuals_are_refused():
    with pytest.raises(DataError, match="1 are left for test"):
        divide(NAMES[:3], Split(), supervised=False)
    with pytest.raises(DataError, match="are left for train"):
        divide(NAMES[:8], Split(train=0.1), supervised=True)
