"""``wildray sweep`` as a Ray job: ``ray job submit -- python jobs/sweep.py FILE.yaml --store FOLDER ...``.

Ray sets RAY_ADDRESS for a job's entry point, which is how the command finds the cluster it runs on.
"""

import sys

from wildray.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main(["sweep", *sys.argv[1:]]))
