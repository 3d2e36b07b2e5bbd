"""The model of scale: what it reckons follows from its rates and assumptions."""

import sys
from dataclasses import replace

import pytest

from bench import scale_model
from bench.scale_model import MAX_CHUNKS, RATES, Assumed, Rate, page, reckon


def test_work_is_counts_times_rates():
    assumed = Assumed(video_s=30, interval_s=0.5, boxes_per_frame=0.5, busy=0.5, cores_per_node=4)
    rates = {**RATES, "megadetector_lite": Rate(0.1, "", ""), "identify": Rate(0.0, "", ""), "probe": Rate(0.0, "", "")}
    found = reckon(3600, 2, assumed, rates)
    assert found.frames == 3600 * 60
    assert found.boxes == 3600 * 30
    assert found.detect_core_h == pytest.approx(6.0)
    assert found.detect_h == pytest.approx(6.0 / 4)
    assert found.chunks == pytest.approx(900)


def test_chunks_are_bounded_and_bytes_grow_with_boxes():
    few, many = (reckon(videos, 1, Assumed()) for videos in (10_000, 10_000_000))
    assert few.chunk_s == 120
    assert many.chunks == pytest.approx(MAX_CHUNKS)
    assert many.objects < 10 * MAX_CHUNKS
    assert reckon(10_000, 1, replace(Assumed(), boxes_per_frame=1.3)).stored_gb == pytest.approx(
        2 * few.stored_gb, rel=0.05
    )


def test_every_rate_says_where_it_was_measured():
    for name, rate in RATES.items():
        assert rate.value > 0, name
        assert "bench" in rate.source or "](" in rate.source, name


def test_the_page_follows_what_is_set(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["scale_model", "--set", "video_s=60"])
    scale_model.main()
    assert capsys.readouterr().out.strip() == page(Assumed(video_s=60)).strip()
    assert "| frames looked at | 120,000 |" in page(Assumed(video_s=60))
    monkeypatch.setattr(sys, "argv", ["scale_model", "--set", "vido_s=60"])
    with pytest.raises(SystemExit):
        scale_model.main()
    assert "video_s" in capsys.readouterr().err
