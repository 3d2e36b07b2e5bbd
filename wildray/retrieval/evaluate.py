"""The stage evaluate: how well animals that were never seen are told apart.

In: a run (or a backbone that stands for one) and labelled images. Out: mAP and cumulative matching with intervals,
chance and the same backbone before training beside them, overall, per species and per identity; and the first answers
of each query for the report. mAP is exact over the whole ranking; faiss finds the first answers only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wildray.bootstrap import intervals
from wildray.config import Config
from wildray.errors import DataError
from wildray.labelled import Labelled, labelled_digest, open_labelled
from wildray.learning.labels import check_unseen
from wildray.learning.run import begun_settings
from wildray.retrieval.embed import EmbedResult, embed_with, read_embeddings
from wildray.retrieval.index import VectorIndex
from wildray.retrieval.metrics import Scores, chance, columns, score
from wildray.retrieval.models import backbone_before, frozen_backbone
from wildray.retrieval.splits import Protocol, make_protocol
from wildray.schema import MATCHES
from wildray.store import Store

logger = logging.getLogger(__name__)

Float32 = npt.NDArray[np.float32]
Table = dict[str, dict[str, float]]


@dataclass(frozen=True)
class EvaluateResult:
    """What evaluate found.

    Attributes:
        metrics: ``mAP``, ``cmc_1``, ``cmc_5``, ``cmc_10``; the same after ``chance_`` and ``untrained_``;
            ``gain_mAP``, the mean over queries of what training added; intervals as ``<key>_low`` and ``<key>_high``;
            ``num_queries``, ``num_unanswerable`` (queries without any right answer, which take no part),
            ``num_identities`` (of the queries that take part), ``num_gallery``, ``seconds``.
        per_species: The figures of each species, where the table has that column.
        per_identity: The figures of each individual.
        run: Name of the run, or None.
        labelled: Digest of the labelled images.
        embeddings: Digest of the vectors.
        uri: Folder with ``evaluation.json`` and ``matches.parquet``.
    """

    metrics: dict[str, float]
    per_species: Table
    per_identity: Table
    run: str | None
    labelled: str
    embeddings: str
    uri: str

    def to_json(self) -> dict[str, Any]:
        """The metrics on top, counts as integers, the tables under their names."""
        flat = {key: int(value) if key.startswith("num_") else value for key, value in self.metrics.items()}
        rest = dataclasses.asdict(self)
        del rest["metrics"]
        return flat | rest


def evaluate(config: Config, store: Store, *, run: str | None = None, data: str | None = None) -> EvaluateResult:
    """Measure retrieval of labelled images with a frozen backbone.

    Args:
        config: ``eval``; ``backbone`` where there is no run; ``scale``.
        store: Holds the run and the images; takes vectors and results.
        run: Name of a run; without it the backbone of the configuration, which is then its own "before training".
        data: Metadata CSV, imported unless it is, or an import's digest; without it the newest import.

    Raises:
        ConfigError: A selection of ``eval`` is malformed.
        DataError: The labelled images or the selections leave nothing to evaluate, or the run was trained on some of
            their individuals.
        StoreError: There is no such run, or the store cannot be read or written.
        WeightsError: The weights of the backbone cannot be read.
    """
    start = time.monotonic()
    labelled = open_labelled(store, labelled_digest(config, store, data))
    _check_unseen(store, run, labelled.digest)
    protocol = make_protocol(labelled.text_columns, config.eval)
    backbone = frozen_backbone(config, store, run)
    logger.info(
        "evaluate: %s, %d queries, gallery of %d, without answers of the same %s",
        run or backbone.name,
        len(protocol.queries),
        len(protocol.gallery),
        ", ".join(("image", *protocol.exclude_columns)),
    )
    uri = f"labelled/{labelled.digest}"
    embedded = embed_with(backbone, config, store, source=uri)
    before = embedded if run is None else embed_with(backbone_before(config, store, run), config, store, source=uri)
    vectors = _vectors(store, labelled, embedded)
    scores = _score(vectors, protocol)
    if not scores.answerable.any():
        raise DataError(_nothing_to_find(protocol, config))
    untrained = scores if before.digest == embedded.digest else _score(_vectors(store, labelled, before), protocol)
    lucky = chance(len(protocol.queries), len(protocol.gallery), masks=protocol.masks)
    metrics = _overall(scores, untrained, lucky, protocol, config)
    metrics["seconds"] = time.monotonic() - start
    place = ("models", run) if run else ("reports", f"backbone-{backbone.name}-{embedded.digest}")
    result = EvaluateResult(
        metrics=metrics,
        per_species=_per_group(labelled, "species", scores, lucky, protocol),
        per_identity=_per_group(labelled, "identity", scores, lucky, protocol),
        run=run,
        labelled=labelled.digest,
        embeddings=embedded.digest,
        uri=str(store.path(*place)),
    )
    matches = _matches(vectors, labelled, protocol, model=embedded.digest, k=config.eval.num_matches)
    store.write_table(matches, *place, "matches.parquet")
    _write_json(result, config, store, place)
    logger.info(
        "evaluate: mAP %.4f (%.4f to %.4f), before training %.4f, chance %.4f, %.1f s",
        *(metrics[key] for key in ("mAP", "mAP_low", "mAP_high", "untrained_mAP", "chance_mAP", "seconds")),
    )
    return result


def _check_unseen(store: Store, run: str | None, evaluated: str) -> None:
    """Refuse to call an individual unseen on which a supervised run was trained."""
    begun = begun_settings(store, run) if run is not None else None
    if begun is not None and begun["train"].get("labels") is not None:
        check_unseen(store, trained=begun["train"]["labels"], evaluated=evaluated)


def _vectors(store: Store, labelled: Labelled, embedded: EmbedResult) -> Float32:
    """Vectors in the order of the labelled table."""
    ids, vectors = read_embeddings(store, embedded.digest)
    if ids != labelled.column("image_id"):
        raise DataError(
            f"embeddings/{embedded.digest} is not of labelled/{labelled.digest}: remove it and embed again."
        )
    return vectors


def _score(vectors: Float32, protocol: Protocol) -> Scores:
    return score(vectors[protocol.queries], vectors[protocol.gallery], masks=protocol.masks)


def _nothing_to_find(protocol: Protocol, config: Config) -> str:
    return (
        f"None of {len(protocol.queries)} queries has a right answer among the images that count: every individual has "
        f"a single image, or all its others share {', '.join(protocol.exclude_columns) or 'nothing'} with it"
        f"{' or differ in ' + ', '.join(config.eval.same) if config.eval.same else ''}. "
        "Set --eval.exclude to other columns, or give images of the same animals from further encounters."
    )


def _overall(scores: Scores, untrained: Scores, lucky: Scores, protocol: Protocol, config: Config) -> dict[str, float]:
    """Means over queries, and intervals of all that depend on a network."""
    identities = protocol.identities[protocol.queries][scores.answerable]
    figures = columns(scores)
    compared = {f"untrained_{name}": values for name, values in columns(untrained).items()}
    compared["gain_mAP"] = figures["mAP"] - compared["untrained_mAP"]
    metrics: dict[str, float] = {}
    drawn = intervals(
        {**figures, **compared},
        identities,
        num_bootstrap=config.eval.num_bootstrap,
        confidence=config.eval.confidence,
        seed=config.eval.seed,
    )
    for name, values in {**figures, **compared}.items():
        metrics[name] = float(values.mean())
        metrics[f"{name}_low"], metrics[f"{name}_high"] = drawn[name]
    metrics |= {f"chance_{name}": float(values.mean()) for name, values in columns(lucky).items()}
    num_identities = len(np.unique(identities))
    if num_identities < 2:
        logger.warning("Only one individual has queries with an answer: the intervals say that nothing is known.")
    metrics["num_queries"] = float(scores.answerable.sum())
    metrics["num_unanswerable"] = float((~scores.answerable).sum())
    metrics["num_identities"] = float(num_identities)
    metrics["num_gallery"] = float(len(protocol.gallery))
    return metrics


def _per_group(labelled: Labelled, column: str, scores: Scores, lucky: Scores, protocol: Protocol) -> Table:
    """Mean figures of the queries of each value of a column; empty where there is no such column."""
    if column not in labelled.table.column_names:
        return {}
    values = labelled.column(column)
    names: Sequence[str | None] = [values[row] for row in protocol.queries[scores.answerable]]
    figures = {**columns(scores), "chance_mAP": columns(lucky)["mAP"]}
    groups: Table = {}
    for name in sorted({name for name in names if name is not None}):
        chosen = np.array([other == name for other in names])
        groups[name] = {key: float(figure[chosen].mean()) for key, figure in figures.items()}
        groups[name]["num_queries"] = float(chosen.sum())
    return groups


def _matches(vectors: Float32, labelled: Labelled, protocol: Protocol, *, model: str, k: int) -> pa.Table:
    """The first k answers of each query that counts, as ``schema.MATCHES``."""
    ids, identities = labelled.column("image_id"), labelled.column("identity")
    index = VectorIndex(vectors[protocol.gallery], [str(ids[row]) for row in protocol.gallery], model=model)
    found = index.search(vectors[protocol.queries], k, allowed=lambda block: protocol.masks(block)[0])
    query, place = np.nonzero(found.rows >= 0)
    answer = protocol.gallery[found.rows[query, place]]
    columns = [
        pa.array([ids[row] for row in protocol.queries[query]], pa.string()),
        pa.array(place + 1, pa.int32()),
        pa.array([ids[row] for row in answer], pa.string()),
        pa.array([identities[row] for row in answer], pa.string()),
        pa.array(found.similarity[query, place], pa.float32()),
    ]
    return pa.table(columns, schema=MATCHES)


def _write_json(result: EvaluateResult, config: Config, store: Store, place: tuple[str, str]) -> None:
    content = result.to_json() | {"protocol": config.eval.model_dump(mode="json")}
    if result.run is not None:  # so that a page can tell whether the run was trained on since
        content["weights"] = store.file_digest("models", result.run, "backbone.safetensors")
    content["protocol_digest"] = hashlib.blake2b(
        json.dumps(content["protocol"], sort_keys=True).encode(), digest_size=8
    ).hexdigest()
    store.write_text(json.dumps(content, indent=1), *place, "evaluation.json")
