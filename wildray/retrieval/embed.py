"""The stage embed: crops through a frozen backbone, unit vectors into the store [RAY DATA].

In: a backbone and a source of crops. Out: ``embeddings/<digest>/``, a Parquet shard of ``schema.EMBEDDINGS`` per chunk;
the digest is of the backbone's weights, the source and the batch size, so equal work is done once. A chunk is embedded
and committed by one process, in batches that start at its first row: so the vectors are the same in one process and on
a cluster, and a run that was killed goes on with the chunks that are missing.

Small sets are embedded in this process, for actors take longer to start than a few thousand images to embed. Ray Data
carries names of chunks, not pixels: mapping over rows of pixels would batch across chunks, differently each time.
"""

from __future__ import annotations

import hashlib
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wildray.collection import Collection
from wildray.config import Config
from wildray.errors import WildrayError, error_to_bytes, raise_error_bytes
from wildray.labelled import labelled_digest
from wildray.learning.backbone import Backbone
from wildray.learning.placing import even_share
from wildray.nodes import amounts, of_kind, selector
from wildray.packs import PackReader
from wildray.retrieval.forward import load_images, unit_vectors
from wildray.retrieval.models import device_of, frozen_backbone
from wildray.retrieval.sources import Source, detections_uri, open_source
from wildray.schema import EMBEDDINGS
from wildray.store import Store
from wildray.vectors import read_vectors

logger = logging.getLogger(__name__)

RAY_IMAGES = 5000
"""Images from which on a connected Ray is used."""
_SLICE = 256
"""Images that are in memory at once."""


@dataclass(frozen=True)
class EmbedResult:
    """What embed did.

    Attributes:
        uri: Folder of the vectors.
        digest: Its name.
        num: Vectors in it.
        num_new: Vectors that were not there before.
        seconds: Time taken.
    """

    uri: str
    digest: str
    num: int
    num_new: int
    seconds: float


def embed(config: Config, store: Store, *, run: str | None = None, data: str | None = None) -> EmbedResult:
    """Embed labelled images, or the crops of detections, with a frozen backbone.

    Args:
        config: ``backbone`` where there is no run; ``eval.batch_size``; ``scale``.
        store: Holds the crops and the run, takes the vectors.
        run: Name of a run; without it the backbone of the configuration.
        data: Metadata CSV of labelled images, imported unless it is, or an import's digest; ``detections`` or
            ``detections/DIGEST`` for the crops of the newest or of other detections; default the newest import.

    Raises:
        DataError: There is nothing to embed, or the backbone gives values that are not finite.
        StoreError: There is no such run, or the store cannot be read or written.
    """
    uri = detections_uri(store, data) or f"labelled/{labelled_digest(config, store, data)}"
    return embed_with(frozen_backbone(config, store, run), config, store, source=uri)


def embed_with(backbone: Backbone, config: Config, store: Store, *, source: str) -> EmbedResult:
    """Embed a source with a backbone that is at hand; vectors that the store has are not made again."""
    start = time.monotonic()
    opened = open_source(store, source)
    facts = {"backbone": backbone.digest(), "source": source, "batch_size": config.eval.batch_size}
    digest = hashlib.blake2b(repr(sorted(facts.items())).encode(), digest_size=8).hexdigest()
    collection = store.collection("embeddings", digest)
    finished = collection.finished()
    pending = [name for name in opened.chunks if name not in finished]
    num_new = sum(opened.chunks[name].num_rows for name in pending)
    if pending:
        logger.info("embed: %d of %d images with %s", num_new, opened.num_rows, backbone.name)
        with store.lease(f"embeddings-{digest}"):
            collection.begin({**facts, "name": backbone.name, "image_size": backbone.image_size, "dim": backbone.dim})
            worker = ChunkEmbedder(backbone, store, source, collection, config)
            if num_new >= RAY_IMAGES and _ray_is_connected():
                _embed_on_ray(worker, pending, config)
            else:
                for name in pending:
                    worker.embed_chunk(name)
    records = collection.finished()
    num, num_new = (sum(int(records[name]["num"]) for name in names) for names in (opened.chunks, pending))
    seconds = time.monotonic() - start
    logger.info("embed: %d new of %d vectors, %.1f s", num_new, num, seconds)
    return EmbedResult(
        uri=str(store.path("embeddings", digest)), digest=digest, num=num, num_new=num_new, seconds=seconds
    )


def read_embeddings(store: Store, digest: str) -> tuple[list[str], npt.NDArray[np.float32]]:
    """Ids and (N, D) float32 unit vectors of an embedding, in the order of its source.

    Raises:
        StoreError: There is no such embedding, or its shards cannot be read.
    """
    ids, vectors = read_vectors(store.collection("embeddings", digest))
    return ids.to_pylist(), vectors


class ChunkEmbedder:
    """Embeds chunks of a source and commits them; picklable, so that an actor can hold it.

    Args:
        backbone: Frozen.
        store: Holds the crops.
        source: URI of the source.
        collection: Takes the vectors.
        config: ``eval.batch_size`` and ``scale.use_gpu``.
    """

    def __init__(self, backbone: Backbone, store: Store, source: str, collection: Collection, config: Config) -> None:
        self._backbone, self._store, self._uri, self._collection = backbone, store, source, collection
        self._config = config
        self._source: Source | None = None

    def embed_chunk(self, name: str) -> int:
        """Embed one chunk; returns the number of its images."""
        if self._source is None:
            self._source = open_source(self._store, self._uri)
            self._backbone.to(device_of(self._config))
        rows = _without_purged(self._source.chunks[name], self._source.reader(self._store))
        vectors = self._vectors(self._source, rows)
        offsets = pa.array(np.arange(len(vectors) + 1, dtype=np.int32) * self._backbone.dim)
        columns = [
            rows["id"].combine_chunks(),
            pa.ListArray.from_arrays(offsets, pa.array(vectors.reshape(-1))),
            *(rows[column].combine_chunks() for column in ("identity", "camera_id", "encounter_id")),
        ]
        self._collection.write("embeddings", name, pa.table(columns, schema=EMBEDDINGS))
        self._collection.done(name, {"num": len(vectors)})
        return len(vectors)

    def _vectors(self, source: Source, rows: pa.Table) -> npt.NDArray[np.float32]:
        batch_size = self._config.eval.batch_size
        step = max(batch_size, _SLICE // batch_size * batch_size)
        reader, image_size = source.reader(self._store), self._backbone.image_size
        parts = [np.empty((0, self._backbone.dim), dtype=np.float32)]
        for start in range(0, rows.num_rows, step):
            part = rows.slice(start, step)
            images = load_images(reader, part["pack"].to_pylist(), part["row"].to_pylist(), image_size=image_size)
            parts.append(unit_vectors(self._backbone, images, batch_size=batch_size))
        return np.concatenate(parts)


class _Actor:
    """Holds a backbone on a worker; a row names a chunk."""

    def __init__(self, worker: list[Any]) -> None:
        import ray

        self._worker: ChunkEmbedder = ray.get(worker[0])

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"num": [self._worker.embed_chunk(str(name)) for name in batch["chunk"]], "error": [b""]}
        except WildrayError as error:
            return {"num": [0], "error": [error_to_bytes(error)]}


def _without_purged(rows: pa.Table, reader: PackReader) -> pa.Table:
    addresses = zip(rows["pack"].to_pylist(), rows["row"].to_pylist(), strict=True)
    return rows.filter(pa.array([bool(reader.jpeg(pack, row)) for pack, row in addresses], pa.bool_()))


def _ray_is_connected() -> bool:
    if "ray" not in sys.modules:  # importing it takes a second and cannot connect it
        return False
    import ray

    return bool(ray.is_initialized())


def _embed_on_ray(worker: ChunkEmbedder, pending: list[str], config: Config) -> None:
    import ray

    listed: Callable[[], list[dict[str, Any]]] = ray.nodes
    nodes = of_kind(listed(), config.scale.train_nodes)
    num_actors = min(config.scale.workers, len(pending))
    # a little of every CPU is left: with all of them taken by actors the task that reads the names could never start
    cpus = config.scale.cpus_per_worker or 0.9 * even_share(amounts(nodes, "CPU"), num_actors)
    use_gpu, num_gpus = config.scale.use_gpu, sum(amounts(nodes, "GPU"))
    gpus = num_gpus >= num_actors if use_gpu is None else use_gpu
    names = ray.data.from_items([{"chunk": name} for name in pending], override_num_blocks=len(pending))
    done = names.map_batches(
        _Actor,
        fn_constructor_args=([ray.put(worker)],),  # in a list: a reference is sent, not a copy each
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=num_actors),
        num_cpus=cpus,
        num_gpus=1 if gpus else None,
        label_selector=selector(config.scale.train_nodes),
    )
    num_images = 0
    for row in done.iter_rows():
        raise_error_bytes(row["error"])
        num_images += int(row["num"])
    logger.info("embed: %d images by %d actors", num_images, num_actors)
