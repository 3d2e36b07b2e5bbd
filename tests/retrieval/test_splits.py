"""Masks against a naive loop over rows; selections that leave nothing are named."""

import numpy as np
import pytest

from wildray.config import EvalConfig
from wildray.errors import ConfigError, DataError
from wildray.retrieval.splits import make_protocol

COLUMNS = {
    "identity": ["a", "a", "a", "b", "b", None, "c", "a"],
    "encounter": ["1", "1", "2", "3", None, "1", "4", None],
    "orientation": ["left", "left", "left", "right", "left", "left", None, "left"],
    "split": ["test", "test", "train", "test", "test", "test", "train", "train"],
}


def naive(config, exclude):
    """Allowed and right (query row, answer row) pairs, one at a time."""
    allowed, right = set(), set()
    for q in range(8):
        for g in range(8):
            if q == g or COLUMNS["identity"][q] is None or COLUMNS["identity"][g] is None:
                continue
            if config.queries and COLUMNS["split"][q] != "test":
                continue
            if config.gallery and COLUMNS["split"][g] != "train":
                continue
            if any(COLUMNS[c][q] is not None and COLUMNS[c][q] == COLUMNS[c][g] for c in exclude):
                continue
            if any(COLUMNS[c][q] is None or COLUMNS[c][q] != COLUMNS[c][g] for c in config.same):
                continue
            allowed.add((q, g))
            if COLUMNS["identity"][q] == COLUMNS["identity"][g]:
                right.add((q, g))
    return allowed, right


@pytest.mark.parametrize(
    ("config", "exclude"),
    [
        (EvalConfig(), ("encounter",)),
        (EvalConfig(exclude=()), ()),
        (EvalConfig(exclude=("encounter", "split")), ("encounter", "split")),
        (EvalConfig(same=("orientation",)), ("encounter",)),
        (EvalConfig(queries="split=test", gallery="split = train"), ("encounter",)),
    ],
)
def test_masks_against_a_loop(config, exclude):
    protocol = make_protocol(COLUMNS, config)
    assert protocol.exclude_columns == exclude
    allowed, right = protocol.masks(slice(0, len(protocol.queries)))
    for mask, wanted in zip((allowed, right), naive(config, exclude), strict=True):
        found = {(int(protocol.queries[q]), int(protocol.gallery[g])) for q, g in np.argwhere(mask)}
        assert found == wanted
    for start in range(len(protocol.queries)):
        part = protocol.masks(slice(start, start + 1))
        np.testing.assert_array_equal(part[0], allowed[start : start + 1])
        np.testing.assert_array_equal(part[1], right[start : start + 1])


def test_without_encounters_only_the_query_itself_is_dropped():
    columns = {name: values for name, values in COLUMNS.items() if name != "encounter"}
    protocol = make_protocol(columns, EvalConfig())
    assert protocol.exclude_columns == ()
    allowed, _ = protocol.masks(slice(0, len(protocol.queries)))
    assert (~allowed).sum() == len(protocol.queries) == 7


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"exclude": ("encounters",)}, DataError, "no column 'encounters'. Did you mean 'encounter'"),
        ({"same": ("side",)}, DataError, "--eval.same.*no column 'side'"),
        ({"queries": "split"}, ConfigError, "expected COLUMN=VALUE"),
        ({"queries": "=test"}, ConfigError, "expected COLUMN=VALUE"),
        ({"gallery": "splits=test"}, DataError, "no column 'splits'. Did you mean 'split'"),
        ({"gallery": "split=tests"}, DataError, "no row has 'tests' in column 'split'. Did you mean 'test'"),
        ({"gallery": "identity=c"}, DataError, "single individual"),
    ],
)
def test_selections_that_fail(options, error, message):
    with pytest.raises(error, match=message):
        make_protocol(COLUMNS, EvalConfig(**options))


def test_an_empty_gallery_and_nameless_images_are_named():
    columns = COLUMNS | {"kind": ["x"] * 5 + ["nameless"] + ["x"] * 2}
    with pytest.raises(DataError, match=r"left in the gallery: loosen --eval.gallery"):
        make_protocol(columns, EvalConfig(gallery="kind=nameless"))
    with pytest.raises(DataError, match="No labelled image has an identity"):
        make_protocol({"identity": [None, None]}, EvalConfig())
    with pytest.raises(DataError, match="single individual"):
        make_protocol({"identity": ["a", "a", None]}, EvalConfig())
