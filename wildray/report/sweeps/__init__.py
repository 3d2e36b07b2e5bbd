"""The page of a sweep: what its settings came to, in tables and pictures.

In: ``sweeps/<name>/sweep.json`` and the records of its trials. Out: ``reports/sweep-<name>/index.html`` with pictures.
Of the sweep's own code nothing is used: a page can be made of records that another machine wrote.
"""

from wildray.report.sweeps.build import SweepPage, report_sweep

__all__ = ["SweepPage", "report_sweep"]
