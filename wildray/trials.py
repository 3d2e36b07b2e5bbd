"""What is known of each trial, and of the sweep: small files that outlive every process.

In: a store and a sweep's name. Out: ``sweeps/<name>/trials/<trial>.json``, written whole by the trial itself while it
runs; ``stopped/<trial>.json`` beside them, by the sweep, of a trial that it ended; and ``sweeps/<name>/sweep.json``,
what the page and the next start read. A trial that is ended early does not know it yet and may still write: so the word
of its end is a file of its own, which holds whatever comes later. Tune's own records would have to be unpickled, hold
what Tune thinks of a trial and not what came of it, and are lost where a trial is renamed.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from wildray.errors import StoreError
from wildray.store import Store

Status = Literal["waiting", "running", "finished", "stopped", "failed"]
"""finished: the whole budget. stopped: by the scheduler. failed: with a reason."""


FAILED = "failed"
"""In a trial's last report to Tune: why it cannot be run."""


@dataclass(frozen=True)
class Origin:
    """Where a trial of a population took its weights from.

    Attributes:
        donor: The trial whose weights it began with.
        epoch: Measurements that they had behind them.
    """

    donor: str
    epoch: int


@dataclass(frozen=True)
class TrialRecord:
    """One trial: some settings with one seed.

    Attributes:
        trial: Its name, from its configuration; of its run in ``models/`` too.
        setting: The same for every seed.
        seed: Of weights, order and augmentation.
        settings: What was searched, by dotted name.
        status: How far it is.
        reason: Why it was stopped or failed.
        pairs: Digest of the pairs (or of the labelled images of a supervised method).
        num_samples: How many of them.
        images_per_epoch: Images that the network sees between two measurements.
        num_epochs: Measurements of the whole budget.
        num_parameters: Of the backbone.
        startup_s: From the beginning of the trial to its first step, of each attempt.
        seconds: From beginning to end, over all attempts.
        core_hours: CPUs that it held times that.
        history: What each measurement found, as in the run's ``history.json``.
        began_at: Unix time in seconds of the first attempt.
        ended_at: Of the end; None before.
        origin: Where its first weights are from, where it took them over; its history begins with theirs.
    """

    trial: str
    setting: str
    seed: int
    settings: Mapping[str, Any]
    status: Status = "waiting"
    reason: str | None = None
    pairs: str | None = None
    num_samples: int | None = None
    images_per_epoch: float = 0.0
    num_epochs: int = 0
    num_parameters: int | None = None
    startup_s: tuple[float, ...] = ()
    seconds: float = 0.0
    core_hours: float = 0.0
    history: tuple[Mapping[str, float], ...] = field(default=())
    began_at: float | None = None
    ended_at: float | None = None
    origin: Origin | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more is to be done; failed trials are tried again when the sweep is."""
        return self.status in ("finished", "stopped")

    @property
    def metrics(self) -> Mapping[str, float]:
        """The last measurement with a measure of retrieval; empty before there is one."""
        return next((epoch for epoch in reversed(self.history) if "mAP" in epoch), {})

    @property
    def num_images(self) -> float:
        """Images that the network has seen."""
        return len(self.history) * self.images_per_epoch


@dataclass(frozen=True)
class Ledger:
    """The records of one sweep; pickles.

    Attributes:
        store: Holds them.
        sweep: Its name.
    """

    store: Store
    sweep: str

    @property
    def folder(self) -> Path:
        """``sweeps/<name>``."""
        return self.store.path("sweeps", self.sweep)

    def read(self, trial: str) -> TrialRecord | None:
        """What is known of a trial.

        Raises:
            StoreError: The record was altered.
        """
        if not self.store.path("sweeps", self.sweep, "trials", f"{trial}.json").is_file():
            return None
        content = self.store.read_json("sweeps", self.sweep, "trials", f"{trial}.json")
        try:
            content["history"], content["startup_s"] = tuple(content["history"]), tuple(content["startup_s"])
            origin = content.get("origin")
            content["origin"] = None if origin is None else Origin(**origin)
            record = TrialRecord(**content)
        except (TypeError, KeyError):
            path = self.store.path("sweeps", self.sweep, "trials", f"{trial}.json")
            raise StoreError(f"{path} is no record of a trial: it was altered. Remove it and sweep again.") from None
        return self._as_stopped(record)

    def write(self, record: TrialRecord) -> TrialRecord:
        """Keep what is known of a trial; returns it."""
        text = json.dumps(dataclasses.asdict(record), indent=1, default=str)
        self.store.write_text(text, "sweeps", self.sweep, "trials", f"{record.trial}.json")
        return record

    def change(self, trial: str, **changes: Any) -> TrialRecord:
        """Change some of what is known of a trial that there is a record of; returns all."""
        record = self.read(trial)
        assert record is not None, f"no record of {trial}"
        return self.write(dataclasses.replace(record, **changes))

    def end(self, trial: str, status: Status, reason: str | None = None) -> TrialRecord:
        """Record that a trial has ended by itself, with all that its run measured."""
        return self.change(trial, status=status, reason=reason, ended_at=time.time(), history=self.history(trial))

    def stop(self, trial: str, reason: str, *, after: int) -> None:
        """Record that the sweep ended a trial; whatever its process still writes, this is how it ended.

        Args:
            trial: Its name.
            reason: In words.
            after: Measurements that count; what it measured while the word was on its way does not.
        """
        content = {"reason": reason, "after": after, "ended_at": time.time()}
        self.store.write_text(json.dumps(content, indent=1), "sweeps", self.sweep, "stopped", f"{trial}.json")

    def _as_stopped(self, record: TrialRecord) -> TrialRecord:
        path = self.store.path("sweeps", self.sweep, "stopped", f"{record.trial}.json")
        if not path.is_file():
            return record
        word = self.store.read_json("sweeps", self.sweep, "stopped", path.name)
        try:
            history = self.history(record.trial)[: int(word["after"])]
            reason, ended_at = str(word["reason"]), float(word["ended_at"])
        except (TypeError, KeyError, ValueError):
            raise StoreError(
                f"{path} does not say how a trial ended: it was altered. Remove it and sweep again."
            ) from None
        return dataclasses.replace(record, status="stopped", reason=reason, ended_at=ended_at, history=history)

    def history(self, trial: str) -> tuple[Mapping[str, float], ...]:
        """Measurements of a trial's run so far."""
        if not self.store.path("models", trial, "history.json").is_file():
            return ()
        return tuple(self.store.read_json("models", trial, "history.json"))

    def all(self) -> list[TrialRecord]:
        """Every record there is, in order of name."""
        folder = self.folder / "trials"
        names = sorted(path.stem for path in folder.glob("*.json") if not path.name.startswith("."))
        return [record for name in names if (record := self.read(name)) is not None]

    def write_sweep(self, content: Mapping[str, Any]) -> None:
        """Keep what is known of the whole sweep."""
        self.store.write_text(json.dumps(content, indent=1, default=str), "sweeps", self.sweep, "sweep.json")

    def read_sweep(self) -> dict[str, Any] | None:
        """What is known of the whole sweep, or None."""
        if not (self.folder / "sweep.json").is_file():
            return None
        content: dict[str, Any] = self.store.read_json("sweeps", self.sweep, "sweep.json")
        return content
