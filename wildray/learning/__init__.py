"""Pairs in, a backbone out: views, networks, methods and the training loop [Ray Train stands only in train]."""
