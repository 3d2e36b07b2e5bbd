"""Settings of evaluation and of the audit, and of where and how large everything runs."""

from __future__ import annotations

import itertools
from typing import Literal

from pydantic import Field, field_validator

from wildray.config.section import Section
from wildray.units import Duration


class EvalConfig(Section):
    """Which images ask, which answer, and which answers do not count."""

    queries: str | None = None
    """COLUMN=VALUE: only these rows are queries."""
    gallery: str | None = None
    """COLUMN=VALUE: only these rows are answers."""
    exclude: tuple[str, ...] | None = None
    """Columns: answers that share one with the query are dropped; default encounter where the column exists."""
    same: tuple[str, ...] = ()
    """Columns: only answers that share all of them with the query are kept, such as orientation."""
    confidence: float = Field(0.95, gt=0, lt=1)
    """Coverage of the intervals, by bootstrap over identities."""
    num_bootstrap: int = Field(1000, ge=10)
    """Bootstrap samples."""
    seed: int = Field(0, ge=0)
    """Seed of the bootstrap and of the random rankings of chance."""
    batch_size: int = Field(64, ge=1)
    """Images in a forward pass."""
    num_matches: int = Field(10, ge=1, le=1000)
    """Answers per query that are kept for the report."""
    max_skipped: float = Field(0.5, ge=0, le=1)
    """An import of labelled images fails when more than this share of its rows cannot be used."""


class AuditConfig(Section):
    """Which mined pairs a person judges, and what is asked of them."""

    num_pairs: int = Field(50, ge=1, le=2000)
    """Pairs on the sheet; all there are, where they are fewer."""
    seed: int = Field(0, ge=0)
    """Seed of the draw: another seed draws a fresh sheet."""
    density_edges: tuple[int, ...] = (2, 4)
    """Boxes in the frame at which a further stratum begins: 1, 2 to 3, 4 and more."""
    gap_edges: tuple[Duration, ...] = (Duration("1s"), Duration("10s"))
    """Times between the two frames of a pair at which a further stratum begins."""
    iou_edges: tuple[float, ...] = (0.35, 0.6)
    """Overlaps at which a further stratum begins."""
    target_purity: float = Field(0.9, gt=0, lt=1)
    """Share of pairs that show one animal which recommended settings are to reach."""

    @field_validator("density_edges", "gap_edges", "iou_edges")
    @classmethod
    def _ascending(cls, value: tuple[float | Duration, ...]) -> tuple[float | Duration, ...]:
        numbers = [edge.seconds if isinstance(edge, Duration) else edge for edge in value]
        if any(later <= earlier for earlier, later in itertools.pairwise(numbers)) or min(numbers, default=1) <= 0:
            raise ValueError(f"got {', '.join(map(str, value))}, expected ascending values above 0")
        return value


class ScaleConfig(Section):
    """How much of the machine or cluster is used. Results of detect and mine do not depend on it."""

    workers: int = Field(1, ge=1)
    """Processes that work at once: decoders and detectors in detect, DDP ranks in pretrain."""
    min_workers: int | None = Field(None, ge=1)
    """Pretrain begins with this many workers when no more can be had, and grows; the global batch stays the same."""
    strategy: Literal["ddp", "zero1", "zero2", "zero3"] = "ddp"
    """How pretrain's workers share memory: ddp keeps all on each; DeepSpeed ZeRO shares out the optimizer's state (1),
    gradients too (2), weights too (3)."""
    cpus_per_worker: float | None = Field(None, gt=0)
    """CPUs of a worker; default the cluster's CPUs shared out evenly."""
    grows: bool = False
    """Whether the cluster starts nodes when they are asked for (an autoscaler): pretrain then waits for those that are
    not there yet; scale.use_gpu says whether they have GPUs, scale.cpus_per_worker how many CPUs each worker wants."""
    use_gpu: bool | None = None
    """Whether pretrain and embed use a GPU each; default where the cluster has enough."""
    decode_nodes: str | None = Field(None, pattern=r"^[^=\s]+=[^=\s]+$")
    """Ray label, KEY=VALUE, of the nodes that decode and mine (detect, mine, train.ingest ray); default any."""
    train_nodes: str | None = Field(None, pattern=r"^[^=\s]+=[^=\s]+$")
    """Ray label, KEY=VALUE, of the nodes that train and embed; default any."""


class TrackingConfig(Section):
    """Where runs are logged."""

    uri: str | None = None
    """MLflow tracking URI; default MLFLOW_TRACKING_URI, else mlflow.db in a local store."""
    experiment: str = "wildray"
    """MLflow experiment."""
