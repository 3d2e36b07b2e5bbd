"""The audit: pairs drawn for people to judge, and what their verdicts say of the whole set.

``draw_sheet`` writes a sheet, ``read_audit`` reads the verdicts. What a pair was said to show is in
``wildray.verdicts``, which everything may import.
"""

from wildray.report.audit.result import AuditResult, read_audit
from wildray.report.audit.sheet import SheetResult, draw_sheet

__all__ = ["AuditResult", "SheetResult", "draw_sheet", "read_audit"]
