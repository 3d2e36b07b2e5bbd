"""The command ``wildray``, which mines in small and slow shards, so that there is something to disturb.

In: the words of a command. Out: what it does. A small reserve is mined in half a second; pairs do not depend on the
size of the shards.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from wildray.cli.cluster import prepare_environment

SHARD_ROWS, SHARD_S = 1, 1.0


def slowly(row: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Mine a shard as a larger one, which takes a while."""
    from wildray.mining.mine import _mine_shard

    time.sleep(SHARD_S)
    return _mine_shard(row, **more)


def run(words: list[str]) -> int:
    """Run the command."""
    prepare_environment("a cluster")  # before anything imports ray
    from bench.fault_driver import slowly as task  # the workers import it by this name
    from wildray.cli.main import main
    from wildray.mining import mine

    # in the driver alone: the workers have the package as it is
    mine.SHARD_ROWS, mine._mine_shard = SHARD_ROWS, task
    return main(words)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
