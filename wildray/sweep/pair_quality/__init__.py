"""Pair quality: purity and yield of mined pairs over a grid of settings and annotated footage.

``PairGrid`` is the file, ``study`` does it. The page is made by ``wildray.report.pair_quality``.
"""

from wildray.sweep.pair_quality.footage import Judgeable, in_store, prepare
from wildray.sweep.pair_quality.spec import PairGrid
from wildray.sweep.pair_quality.study import StudyResult, study

__all__ = ["Judgeable", "PairGrid", "StudyResult", "in_store", "prepare", "study"]
