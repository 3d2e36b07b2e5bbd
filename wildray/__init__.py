"""wildray: tell individual animals apart from unlabelled camera-trap video.

The flow is ``videos -> detect -> mine -> pretrain -> embed -> evaluate``; each stage is a function that takes a
configuration and a store (see ``wildray.config`` and ``wildray.store``) and a command of the same name.
"""

__version__ = "0.1.0"
