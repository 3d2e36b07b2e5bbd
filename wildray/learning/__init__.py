"""Pairs in, a backbone out: views, networks, methods and the training loop [Ray Train: attempts and worker alone]."""
