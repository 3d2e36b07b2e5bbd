"""The measured rates that ``bench.scale_model`` reckons with, each with where it was measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rate:
    """A figure that was measured.

    Attributes:
        value: The figure.
        unit: Of it.
        source: The command or page it comes from.
    """

    value: float
    unit: str
    source: str


RATES_BENCH = "`bench.scale_rates`, 1280x720 H.264 of the simulator, one core of an AMD EPYC"
DRIVER_BENCH = "[driver.md](driver.md), a million media"
CHUNK_BENCH = "`bench.driver_scale --one 20000 --chunk 2s`: 5,000 chunks"
RATES = {
    "megadetector_lite": Rate(0.0857, "core s a frame, decoded, detected, cropped", RATES_BENCH),
    "motion": Rate(0.0316, "core s a frame (decoded twice)", RATES_BENCH),
    "identify": Rate(0.00093, "core s a file", RATES_BENCH),
    "probe": Rate(0.045, "core s a file, the decoding process's start among it", RATES_BENCH),
    "driver_wall": Rate(
        0.00047, "s a medium on the driver and two workers, all of planning and recording", DRIVER_BENCH
    ),
    "driver_cpu": Rate(0.000082, "core s a medium on the driver", DRIVER_BENCH),
    "driver_bytes": Rate(1566, "bytes of the driver's memory a medium", DRIVER_BENCH),
    "driver_chunk": Rate(0.0019, "core s a chunk on the driver", CHUNK_BENCH),
    "record_bytes": Rate(130, "bytes a medium: its row, its plan, its share of records", DRIVER_BENCH),
    "mine": Rate(0.000051, "core s a box", "`bench.mine_scale --sequences 2000`"),
    "pairs_per_box": Rate(0.40, "pairs a box", "`bench.mine_scale --sequences 2000`"),
    "crop": Rate(25_500, "bytes a crop with its background", RATES_BENCH),
    "box_row": Rate(73, "bytes a box", RATES_BENCH),
    "frame_row": Rate(9.1, "bytes a frame", RATES_BENCH),
    "chunk_overhead": Rate(9_300, "bytes a chunk: three tables and a record, without rows", CHUNK_BENCH),
    "embed": Rate(0.0041, "core s a crop, ResNet-18 at 96 px", RATES_BENCH),
    "train_gpu": Rate(1108, "images a second, SimCLR, one H100 shared by several runs", "[methods.md](methods.md)"),
    "train_cpu": Rate(71.6, "crops a second, ViT-Tiny at 96 px, two cores", "[workers.md](workers.md)"),
}
