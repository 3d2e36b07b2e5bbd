"""The sweep: many trainings over detections that are made once, compared on individuals none of them has seen.

In: a sweep file and a store. Out: a run in ``models/`` per trial, a record of each in ``sweeps/<name>/``, MLflow runs
under one parent, and the best setting, tested once. The listing is the data flow: ``spec`` (the file), ``space`` (its
settings), ``budget`` (equal work), ``splits`` (individuals), ``shared`` (what is made once), ``trial`` (one training),
``search`` and ``tuner`` (Ray Tune), ``outcome`` (what is best), ``tracked`` (MLflow), ``stage`` (all of it in order).
"""
