"""The driver of detect holds ten times the media at nearly the same time for each, in little memory."""

import pytest

from bench.driver_scale import measure_apart, page, us_per_row

FEW, MANY = 2_000, 20_000


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_medium_costs_the_driver_no_more_among_many():
    few, many = (measure_apart(count, chunk="60s", workers=2) for count in (FEW, MANY))
    cpu_us = [found["calls"]["first"]["driver_cpu_s"] / found["rows"] * 1e6 for found in (few, many)]
    # start-up counts in full among the few: work that grows with the square of the media would be tenfold
    assert cpu_us[1] < 1.5 * cpu_us[0], cpu_us
    assert us_per_row(many) < 3 * us_per_row(few)
    assert many["calls"]["first"]["driver_mb"] < 20 + MANY * 3e-3, "three kilobytes a medium beside what Ray takes"
    assert many["calls"]["again"]["num_new"] == 0
    assert many["calls"]["again"]["seconds"] < 0.7 * many["calls"]["first"]["seconds"]
    assert many["calls"]["more"]["num_new"] == 1_000
    for found in (few, many):
        assert found["chunks"] == -(-found["rows"] // 120)
        assert found["files"] < 4.5 * found["chunks"] + 20, "files grow with chunks"
    text = page([few, many], chunk="60s", workers=2)
    assert "| 20,000 | 167 |" in text
