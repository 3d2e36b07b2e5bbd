"""Files identified and probed by tasks of Ray Data, before anything in them is looked at.

In: listed media. Out: their ids, and Media rows of those that are new. Rows are columns from end to end, and only some
of them lie in Ray's object store at a time. The alternative, one task per file or a closure over all of them, takes
longer to hand out than to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray
import ray.data

from wildray.config import Config, DetectConfig
from wildray.mining.clock import captured
from wildray.mining.detectors.results import Results
from wildray.mining.fresh import item_of, to_text, uris_of
from wildray.mining.media import MediaItem, identify, probe
from wildray.mining.sandbox import FrameSource
from wildray.nodes import amounts, of_kind, selector, task_cpus
from wildray.progress import tracked
from wildray.schema import MEDIA

SCAN_BATCH = 16
SCAN_BLOCK = 1_024
TASKS_PER_CPU = 32
"""Files that a Ray task identifies or probes: so many that there are 32 tasks for each CPU, but at least 16 and at most
1,024."""
SCAN_ROUND = 131_072
"""Files that Ray's object store holds rows of at a time."""
IDENTIFIED_HERE = 20_000
"""More files than this are identified by Ray tasks: the driver's own disk and network would be what all wait for."""


def absent_rows(config: Config, results: Results, new: pa.Table) -> Iterator[pa.Table]:
    """Media rows of media (``fresh.NEW``) that only a results file knows."""
    for batch in new.to_batches(max_chunksize=SCAN_BLOCK):
        rows = []
        for given in batch.to_pylist():
            capture = captured({}, given=given["captured_at"], time_zone=config.detect.time_zone)
            when = {"captured_at": capture.at, "captured_at_text": capture.text, "captured_at_zone": capture.zone}
            known = {name: given[name] for name in ("media_id", "num_duplicates")}
            rows.append({**results.media_row(item_of(given)), **when, **known, "clock_flag": "none"})
        yield pa.Table.from_pylist(rows, schema=MEDIA)


def probed_rows(config: Config, new: pa.Table) -> Iterator[pa.Table]:
    """Media rows of new media (``fresh.NEW``), probed by Ray tasks, in any order."""
    options = source_options(config.detect)
    zone, max_bytes = config.detect.time_zone, config.detect.max_file_gb * 1e9

    def probe_batch(batch: pa.Table) -> pa.Table:
        rows = []
        with FrameSource(**options) as source:
            for given in batch.to_pylist():
                row = probe(item_of(given), source=source, time_zone=zone, max_file_bytes=max_bytes)
                rows.append(row | {name: given[name] for name in ("media_id", "num_duplicates")})
        return pa.Table.from_pylist(rows, schema=MEDIA)

    for table in _mapped(config, new, probe_batch):
        yield table.cast(MEDIA)


def identified(config: Config, items: Sequence[MediaItem]) -> npt.NDArray[np.bytes_]:
    """Ids of media, (N,): here, or where there are many by Ray tasks, since two MiB of each file are read."""
    if len(items) < IDENTIFIED_HERE:
        return identify([item.uri for item in items])

    def identify_batch(batch: pa.Table) -> pa.Table:
        ids = identify([to_text(uri) for uri in batch["uri"].to_pylist()])
        return pa.table({"number": batch["number"], "media_id": pa.array(ids, pa.binary())})

    ids = np.empty(len(items), "S32")
    listed = pa.table({"number": np.arange(len(items)), "uri": uris_of(items)})
    for table in tracked(_mapped(config, listed, identify_batch), len(items), "identifying", weigh=len):
        ids[table["number"].to_numpy()] = table["media_id"].to_numpy()
    return ids


def _mapped(config: Config, rows: pa.Table, change: Callable[[pa.Table], pa.Table]) -> Iterator[pa.Table]:
    """What Ray tasks make of rows about files, in any order, a large table at a time."""
    cpus = max(1, int(sum(amounts(of_kind(ray.nodes(), config.scale.decode_nodes), "CPU"))))
    size = min(SCAN_BLOCK, max(SCAN_BATCH, rows.num_rows // (TASKS_PER_CPU * cpus)))
    where = selector(config.scale.decode_nodes)
    for begin in range(0, rows.num_rows, SCAN_ROUND):
        some = rows.slice(begin, SCAN_ROUND)
        scanned = ray.data.from_arrow([some.slice(at, size) for at in range(0, some.num_rows, size)]).map_batches(
            change, batch_size=None, batch_format="pyarrow", num_cpus=cpus_per_task(config) / 2, label_selector=where
        )
        batches: Iterable[Any] = scanned.iter_batches(batch_size=None, batch_format="pyarrow")
        # what Ray gives lies in its object store, and is kept there for as long as it is referred to
        yield pa.concat_tables(batches).combine_chunks()


def cpus_per_task(config: Config) -> float:
    """CPUs set aside for a worker: never all of a small machine, or Ray Data's own tasks would wait for ever."""
    scale = config.scale
    if scale.cpus_per_worker is not None:
        return max(0.1, min(1.0, scale.cpus_per_worker / 2))
    return task_cpus(of_kind(ray.nodes(), scale.decode_nodes), scale.workers)


def source_options(config: DetectConfig) -> dict[str, Any]:
    """What a ``FrameSource`` is made with."""
    return {
        "timeout_s": config.decode_timeout.seconds,
        "memory_mb": config.decode_memory_mb,
        "max_pixels": config.max_pixels,
    }
