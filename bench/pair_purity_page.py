"""The page of ``bench.pair_purity``."""

from bench.record import Results


def page(results: Results) -> str:
    return ""
