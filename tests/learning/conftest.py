import pytest
import torch
from learning_store import make_store

torch.set_num_threads(1)


@pytest.fixture
def pair_store(tmp_path):
    return make_store(str(tmp_path / "store"))
