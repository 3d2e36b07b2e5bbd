"""A Ray of two nodes on this machine, one of which is drained by the agent while a task runs on it; prints JSON.

A process of its own, since a test session may be connected to another Ray.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

from wildray.cli.cluster import prepare_environment

prepare_environment()
AGENT = Path(__file__).parents[2] / "cluster" / "preemption.py"
sys.path.insert(0, str(AGENT.parent))
import preemption  # noqa: E402
import ray  # noqa: E402
from ray._raylet import GcsClient  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

TRAIN = {"wildray/work": "train"}
BUSY_S = 10.0


@ray.remote(num_cpus=1, label_selector=TRAIN)
def work(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def main(metadata_url: str) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        node = cluster.add_node(num_cpus=1, labels=TRAIN).node_id
        ray.init(address=cluster.address, log_to_driver=False)
        ray.get(work.remote(0.0), timeout=60)  # its process is there
        found = node in preemption.node_ids()
        begun = work.remote(BUSY_S)
        time.sleep(1.0)
        command = [sys.executable, str(AGENT), "--cloud", "aws", "--metadata-url", metadata_url]
        done = subprocess.run(
            [*command, "--address", cluster.address, "--node-id", node], capture_output=True, text=True, check=False
        )
        draining = GcsClient(address=cluster.address).get_draining_nodes()
        later = work.remote(0.0)
        finished = ray.get(begun, timeout=60)
        placed, _ = ray.wait([later], timeout=3)
        deadline = time.monotonic() + 30
        while (state := next(item for item in ray.nodes() if item["NodeID"] == node))["Alive"]:
            if time.monotonic() > deadline:
                break
            time.sleep(0.5)
        print(
            json.dumps(
                {
                    "found": found,
                    "status": done.returncode,
                    "log": done.stderr,
                    "deadline_s": draining.get(node, 0) / 1000 - time.time() if node in draining else None,
                    "finished": finished,
                    "later_placed": bool(placed),
                    "alive": state["Alive"],
                    "message": state.get("DeathReasonMessage"),
                }
            )
        )
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
