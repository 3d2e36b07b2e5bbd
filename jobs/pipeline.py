"""``wildray pipeline`` as a Ray job: ``ray job submit -- python jobs/pipeline.py MEDIA --store FOLDER --run NAME ...``.

Ray sets RAY_ADDRESS for a job's entry point, which is how the command finds the cluster it runs on.
"""

import sys

from wildray.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main(["pipeline", *sys.argv[1:]]))
