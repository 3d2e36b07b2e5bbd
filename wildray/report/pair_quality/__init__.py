"""The page of a study of pair quality: what to choose, tables, fronts, heat maps."""

from wildray.report.pair_quality.build import PairQualityPage, report_pair_quality

__all__ = ["PairQualityPage", "report_pair_quality"]
