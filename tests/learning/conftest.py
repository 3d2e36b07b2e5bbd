import pytest
import torch
from learning_store import IMPORT, make_store, write_labels

from wildray.labelled import import_labelled

torch.set_num_threads(1)


@pytest.fixture
def pair_store(tmp_path):
    return make_store(str(tmp_path / "store"))


@pytest.fixture(scope="module")
def both_stores(tmp_path_factory):
    """A store with pairs and labelled images, that trainings only add runs to, and the digest of the labels."""
    folder = tmp_path_factory.mktemp("both")
    store = make_store(str(folder / "store"), num_pairs=50)
    names = [f"animal{i % 6}" for i in range(50)]
    return store, import_labelled(store, write_labels(folder / "l", names), **IMPORT).digest
