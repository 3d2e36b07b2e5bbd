"""What follows from the nodes of a cluster."""

import pytest

from wildray.config import Config
from wildray.errors import ConfigError
from wildray.nodes import amounts, of_kind, selector, task_cpus

NODES = [
    {"Alive": True, "NodeID": "head", "Labels": {}, "Resources": {"memory": 1.0}},
    {"Alive": True, "NodeID": "a", "Labels": {"work": "decode"}, "Resources": {"CPU": 4.0}},
    {"Alive": True, "NodeID": "b", "Labels": {"work": "decode"}, "Resources": {"CPU": 2.0}},
    {"Alive": True, "NodeID": "c", "Labels": {"work": "train"}, "Resources": {"CPU": 8.0, "GPU": 1.0}},
    {"Alive": False, "NodeID": "d", "Labels": {"work": "decode"}, "Resources": {"CPU": 64.0}},
]


def test_nodes_of_a_kind_are_those_that_are_alive_and_have_the_label():
    assert [node["NodeID"] for node in of_kind(NODES, None)] == ["head", "a", "b", "c"]
    assert [node["NodeID"] for node in of_kind(NODES, "work=decode")] == ["a", "b"]
    assert of_kind(NODES, "work=else") == []
    assert amounts(of_kind(NODES, "work=train"), "GPU") == [1.0]
    assert (selector(None), selector("k=v=w")) == (None, {"k": "v=w"})


def test_shares_fit_the_nodes_there_are():
    decoders = of_kind(NODES, "work=decode")
    assert task_cpus(decoders, 3) == 1.0
    assert task_cpus(decoders, 6) == 0.5
    assert task_cpus(decoders, 600) == 0.1
    assert task_cpus([], 3) == 0.5, "a cluster at rest"


@pytest.mark.parametrize("label", ["decode", "=x", "a b=c", "key="])
def test_a_label_is_a_key_and_a_value(label):
    with pytest.raises(ConfigError, match=r"scale\.decode_nodes"):
        Config.load(overrides={"scale.decode_nodes": label})
