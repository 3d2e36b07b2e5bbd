"""Pages and figures of what the stages found; ``report`` writes them, ``log_pictures`` puts them into a run."""

from wildray.report.build import ReportResult, log_pictures, report

__all__ = ["ReportResult", "log_pictures", "report"]
