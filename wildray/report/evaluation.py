"""What evaluation wrote, read for the page.

In: a run's folder. Out: ``Evaluation``: figures, first answers of each query, the labelled images and their vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wildray.errors import DataError, StoreError
from wildray.labelled import Labelled, open_labelled
from wildray.schema import EMBEDDINGS, MATCHES
from wildray.store import Store


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of one run.

    Attributes:
        figures: Flat: ``mAP``, ``mAP_low``, ``chance_mAP`` ...
        per_species, per_identity: Figures of each.
        stale: Whether the run was trained on since.
        same: Columns that an answer must share with its query.
        exclude: Columns that a right answer may not share with its query, as they were configured; None: the default.
        matches: Table of ``schema.MATCHES``.
        labelled: The labelled images, or None where they are gone.
        vectors: (N, D) float32 in the order of ``vector_ids``; None where they are gone.
        vector_ids: Ids of the images of the vectors.
    """

    figures: dict[str, float]
    per_species: dict[str, dict[str, float]]
    per_identity: dict[str, dict[str, float]]
    stale: bool
    same: list[str]
    exclude: list[str] | None
    matches: pa.Table
    labelled: Labelled | None
    vectors: npt.NDArray[np.float32] | None
    vector_ids: list[str]


def read_evaluation(store: Store, run: str | None) -> Evaluation | None:
    """The evaluation of a run; without a run the newest of a backbone that stood for one; None where there is none.

    Raises:
        StoreError: It cannot be read.
    """
    place = ("models", run) if run is not None else _newest_backbone(store)
    if place is None or not store.path(*place, "evaluation.json").is_file():
        return None
    content = store.read_json(*place, "evaluation.json")
    matches = store.path(*place, "matches.parquet")
    vectors = _vectors(store, str(content.get("embeddings")))
    weights = store.file_digest(*place, "backbone.safetensors")
    return Evaluation(
        figures={key: float(value) for key, value in content.items() if isinstance(value, int | float)},
        per_species=content.get("per_species") or {},
        per_identity=content.get("per_identity") or {},
        stale=run is not None and content.get("weights", weights) != weights,
        same=list((content.get("protocol") or {}).get("same") or ()),
        exclude=(content.get("protocol") or {}).get("exclude"),
        matches=_read(store, matches) if matches.is_file() else MATCHES.empty_table(),
        labelled=_labelled(store, content.get("labelled")),
        vectors=vectors[1] if vectors else None,
        vector_ids=vectors[0] if vectors else [],
    )


def _newest_backbone(store: Store) -> tuple[str, str] | None:
    files = sorted(store.path("reports").glob("backbone-*/evaluation.json"), key=lambda path: path.stat().st_mtime_ns)
    return ("reports", files[-1].parent.name) if files else None


def _read(store: Store, path: Path) -> pa.Table:
    try:
        return store.read_table(path).cast(MATCHES)
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{path} cannot be read ({error}): evaluate again.") from None


def _labelled(store: Store, digest: Any) -> Labelled | None:
    try:
        return open_labelled(store, str(digest)) if digest else None
    except (DataError, StoreError):
        return None


def _vectors(store: Store, digest: str) -> tuple[list[str], npt.NDArray[np.float32]] | None:
    collection = store.collection("embeddings", digest)
    table = collection.read("embeddings", EMBEDDINGS, columns=["id", "vector"]) if collection.finished() else None
    if table is None or not table.num_rows:
        return None
    flat = np.asarray(table["vector"].combine_chunks().flatten(), dtype=np.float32)
    return table["id"].to_pylist(), flat.reshape(table.num_rows, -1)
