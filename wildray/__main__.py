"""``python -m wildray`` is the command ``wildray``."""

from wildray.cli.main import main

raise SystemExit(main())
