"""Training as a process of its own, to be killed: STORE RUN, and "ray" to go through the stage."""

import os
import sys

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import torch
from learning_store import PAIRS_DIGEST, tiny_config

from wildray.learning.job import Job, Place
from wildray.learning.loop import run_training
from wildray.store import Store


def through_ray(root: str, run: str) -> None:
    import ray

    from wildray.learning.train import pretrain

    ray.init(address="local", include_dashboard=False, log_to_driver=False, num_cpus=2)
    pretrain(tiny_config(), Store.open(root), run=run)


if __name__ == "__main__":
    if sys.argv[3:] == ["ray"]:
        through_ray(sys.argv[1], sys.argv[2])
    else:
        torch.set_num_threads(1)
        run_training(Job(tiny_config(), Store.open(sys.argv[1]), sys.argv[2], PAIRS_DIGEST), Place())
