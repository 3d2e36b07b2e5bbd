"""Pages and figures of what the stages found; ``report`` writes them."""

from wildray.report.build import ReportResult, report

__all__ = ["ReportResult", "report"]
