"""mAP as training goes on: a small picklable measurement that a training stage calls with its backbone.

In: labelled images of a store. Out: a callable, backbone to flat metrics. Training knows nothing of retrieval: it gets
this as a value. Decoded images stay in the process between calls, since decoding would take longer than the network.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from wildray.bootstrap import intervals
from wildray.config import Config
from wildray.errors import DataError
from wildray.labelled import open_labelled
from wildray.retrieval.forward import load_images, unit_vectors
from wildray.retrieval.metrics import columns, score
from wildray.retrieval.splits import Protocol, make_protocol
from wildray.store import Store

_MAX_CACHED_BYTES = 1024**3
"""Images that take more than this are decoded anew at every call."""
_PART = 1024
"""Images that are in memory at once where they are not kept."""


class Probe:
    """``probe(backbone)`` measures it on labelled images, by the protocol of a configuration.

    It gives ``mAP`` with its interval (``mAP_low``, ``mAP_high``), ``cmc_1``, and, where the images are of several
    species, ``mAP/<species>``.

    Args:
        config: ``eval``, ``backbone.image_size``.
        store: Holds the images.
        data: Digest of their import.
    """

    def __init__(self, config: Config, store: Store, data: str) -> None:
        self._config, self._store, self._data = config, store, data

    def lineage(self) -> dict[str, Any]:
        """What it measures on, for ``RunLog.input``."""
        protocol = _protocol(self._config, self._store, self._data)
        facts = {
            "num_images": len(protocol.identities),
            "num_identities": len(np.unique(protocol.identities)),
            "num_queries": len(protocol.queries),
            "eval": self._config.eval.model_dump(mode="json"),
        }
        uri = str(self._store.path("labelled", self._data))
        return {"name": "labelled", "digest": self._data, "context": "evaluation", "uri": uri, "facts": facts}

    def __call__(self, backbone: nn.Module) -> dict[str, float]:
        """Measure; the backbone's mode, weights and device are left as they are.

        Raises:
            DataError: The backbone gives values that are not finite.
        """
        protocol = _protocol(self._config, self._store, self._data)
        size, batch_size = self._config.backbone.image_size, self._config.eval.batch_size
        num_images = len(protocol.identities)
        if num_images * 3 * size * size <= _MAX_CACHED_BYTES:
            images = _images(self._store, self._data, size)
            vectors = unit_vectors(backbone, images, batch_size=batch_size)
        else:
            parts = (_load(self._store, self._data, size, start) for start in range(0, num_images, _PART))
            vectors = np.concatenate([unit_vectors(backbone, part, batch_size=batch_size) for part in parts])
        scores = score(vectors[protocol.queries], vectors[protocol.gallery], masks=protocol.masks)
        figures = columns(scores)
        asked = protocol.queries[scores.answerable]
        drawn = intervals(
            {"mAP": figures["mAP"]},
            protocol.identities[asked],
            num_bootstrap=self._config.eval.num_bootstrap,
            confidence=self._config.eval.confidence,
            seed=self._config.eval.seed,
        )
        measured = {name: float(figures[name].mean()) for name in ("mAP", "cmc_1")}
        measured["mAP_low"], measured["mAP_high"] = drawn["mAP"]
        species = _species(self._store, self._data)[asked] if len(asked) else np.empty(0, str)
        names = [name for name in np.unique(species).tolist() if name]
        if len(names) > 1:
            measured |= {f"mAP/{name}": float(figures["mAP"][species == name].mean()) for name in names}
        return measured


def make_probe(config: Config, store: Store, data: str) -> Probe:
    """A probe over an import of labelled images; checks now that there is something to measure.

    Args:
        config: ``eval`` and ``backbone.image_size``.
        store: Holds the images.
        data: Digest of their import.

    Raises:
        DataError: The selections of ``eval`` leave no query with a right answer.
    """
    protocol = _protocol(config, store, data)
    whole = slice(0, len(protocol.queries))
    if not protocol.masks(whole)[1].any():
        raise DataError("No labelled image has another of the same animal that counts: train without --data.")
    return Probe(config, store, data)


@functools.lru_cache(maxsize=2)
def _protocol(config: Config, store: Store, data: str) -> Protocol:
    return make_protocol(open_labelled(store, data).text_columns, config.eval)


@functools.lru_cache(maxsize=2)
def _species(store: Store, data: str) -> npt.NDArray[np.str_]:
    """(N,) species of each labelled image; empty where it is not known."""
    columns_of = open_labelled(store, data).text_columns
    names = columns_of.get("species", [None] * len(columns_of["identity"]))
    return np.array([name or "" for name in names], str)


@functools.lru_cache(maxsize=1)
def _images(store: Store, data: str, size: int) -> npt.NDArray[np.uint8]:
    return _load(store, data, size, 0, None)


def _load(store: Store, data: str, size: int, start: int, num_rows: int | None = _PART) -> npt.NDArray[np.uint8]:
    labelled = open_labelled(store, data)
    part = labelled.table.slice(start, num_rows)
    packs, rows = part["crop_pack"].to_pylist(), part["crop_row"].to_pylist()
    return load_images(labelled.reader(), packs, rows, image_size=size)
