"""``wildray pretrain`` as a Ray job: ``ray job submit -- python jobs/pretrain.py --store FOLDER ...``.

Ray sets RAY_ADDRESS for a job's entry point, which is how the command finds the cluster it runs on.
"""

import sys

from wildray.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main(["pretrain", *sys.argv[1:]]))
