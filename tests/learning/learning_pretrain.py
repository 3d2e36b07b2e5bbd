"""Pretrain as a process of its own, to be killed: STORE RUN WORKERS."""

import os
import sys

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import ray
from learning_store import tiny_config

from wildray.learning.train import pretrain
from wildray.store import Store

if __name__ == "__main__":
    root, run, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
    ray.init(address="local", include_dashboard=False, log_to_driver=False, num_cpus=2)
    result = pretrain(tiny_config(workers=workers), Store.open(root), run=run)
    print(result.num_steps)
