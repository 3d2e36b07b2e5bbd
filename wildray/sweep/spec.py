"""What a sweep file says: base configuration, what is searched, how, for how long, and by which measure.

In: YAML. Out: a frozen ``SweepSpec``, with every name and every value that stands in the file tried out against the
configuration, so that a slip is found before the first hour of work and not in the fortieth trial.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator

from wildray.config import Config, field_names, read_mapping
from wildray.config.section import Section
from wildray.errors import ConfigError, nearest
from wildray.store import check_run_name
from wildray.sweep.dimension import Dimension, ordered

MEASURES = ("mAP", "cmc_1")
"""What is measured on the validation individuals as training goes on."""
FIXED = ("train.pairs", "train.labels", "train.epochs", "train.epoch_size", "train.seed", "mine.detections")
"""What the sweep itself decides."""
UPSTREAM = ("simulate", "detect")
"""Sections that are worked on once for all trials."""
TAKEN_OVER = (
    *(f"augment.{name}" for name in ("min_crop", "color_jitter", "grayscale", "blur", "flip", "erase", "tighten")),
    *(f"method.{name}" for name in ("temperature", "momentum", "margin", "scale")),
    *(f"train.{name}" for name in ("learning_rate", "clip_norm")),
)
"""Settings that may change in the middle of a training: no shape and no order of samples hangs on them."""


class Scheduler(Section):
    """Which trials are ended early."""

    kind: Literal["none", "asha", "pbt"] = "none"
    """none: every trial gets the whole budget. asha: the worse ones end at rungs (asynchronous successive halving,
    arXiv 1810.05934). pbt: at every exchange the worse ones go on from weights of better ones, with settings near
    theirs (population-based training, arXiv 1711.09846)."""
    grace: int = Field(1, ge=1)
    """asha: measurements before a trial may be ended."""
    reduction: float = Field(3.0, gt=1)
    """asha: of those that reach a rung, one in so many goes on."""
    interval: int = Field(1, ge=1)
    """pbt: measurements between exchanges."""
    quantile: float = Field(0.25, gt=0, le=0.5)
    """pbt: share of the trials that ends at an exchange, and of those whose weights are taken over."""
    factor: float = Field(1.25, gt=1)
    """pbt: a setting that is taken over is multiplied or divided by this, or moves a place in its list."""
    resample: float = Field(0.25, ge=0, le=1)
    """pbt: probability that it is drawn anew instead."""


class Algorithm(Section):
    """How settings are chosen."""

    kind: Literal["grid", "random", "optuna"] = "grid"
    """grid: every combination. random: drawn independently. optuna: where earlier trials were good (TPE)."""
    seed: int = Field(0, ge=0)
    """Seed of what is drawn."""


class Budget(Section):
    """How much work is done."""

    images: int = Field(..., ge=1)
    """Images that each trial's network sees (a view of a smaller side counts by its share of pixels): equal work,
    however many pairs a setting gives."""
    images_per_step: int | None = Field(None, ge=2)
    """Images in a step: the batch size follows, so that methods with more views of a sample take smaller batches.
    Default: train.batch_size samples."""
    measurements: int = Field(5, ge=1)
    """Times that a trial is measured, at equal distances; the last is at the end of its budget."""
    trials: int | None = Field(None, ge=1)
    """Settings that are tried; the whole grid by default. random and optuna need it."""
    hours: float | None = Field(None, gt=0)
    """No trial is begun after so many hours, and those under way are ended; the same command goes on with them."""


class Objective(Section):
    """What is to be good."""

    metric: str = "mAP"
    """mAP or cmc_1 on the validation individuals; or seconds, the time that the training took."""
    mode: Literal["max", "min"] = "max"
    """Whether more or less of it is better."""

    @field_validator("metric")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in (*MEASURES, "seconds"):
            raise ValueError(f"got {value!r}, expected {', '.join(MEASURES)} or seconds")
        return value


class Split(Section):
    """Shares of the individuals of the labelled images. Each lies in one part, for the whole sweep."""

    train: float | None = Field(None, ge=0, lt=1)
    """Supervised methods are trained on these; default 0.4 where one is tried, else none."""
    validation: float = Field(0.5, gt=0, lt=1)
    """Of the others, the share that schedulers, search and the choice of the best see; the rest is tested on, once."""
    seed: int = Field(0, ge=0)
    """Of the division."""


class Resources(Section):
    """What a trial gets."""

    workers: int = Field(1, ge=1)
    """Training processes of a trial."""
    cpus: float = Field(1.0, gt=0)
    """CPUs of each, the trial's own driver included."""
    gpus: int = Field(0, ge=0, le=1)
    """GPUs of each."""
    concurrency: int | None = Field(None, ge=1)
    """Trials at a time; default as many as the cluster has room for."""


class SweepSpec(Section):
    """A sweep file."""

    name: str = ""
    """Name of the sweep: of its folder and of its MLflow experiment; default the name of the file."""
    description: str = ""
    """What it is for; shown on the page."""
    preset: str | None = None
    """Preset that is laid under ``base``."""
    base: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Configuration of what is not searched, as in any configuration file."""
    simulate: bool = False
    """Whether a reserve is made for the sweep (base: simulate), and is its media and data where those are not given."""
    media: tuple[str, ...] = ()
    """Files, folders, globs or manifests to detect animals in; default what the store has detected."""
    data: str | None = None
    """Metadata CSV of labelled individuals; default the newest import of the store."""
    search: dict[str, Dimension]
    """Dotted names to what is tried."""
    scheduler: Scheduler = Scheduler()
    algorithm: Algorithm = Algorithm()
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    """Every setting is trained once with each seed."""
    budget: Budget
    objective: tuple[Objective, ...] = Field((Objective(),), min_length=1)
    """One, or with optuna several; what is best is judged by the first."""
    split: Split = Split()
    resources: Resources = Resources()

    @property
    def in_process(self) -> bool:
        """Whether a trial trains in its own process, and needs no workers of Ray Train."""
        return self.resources.workers == 1 and self.config().scale.strategy == "ddp"

    @classmethod
    def load(cls, path: str | Path, overrides: Mapping[str, object] | None = None) -> Self:
        """Read and check a sweep file.

        Args:
            path: YAML file.
            overrides: Dotted names of the configuration (``train.batch_size``) to values, laid over ``base``.

        Raises:
            ConfigError: The file cannot be read, is no sweep, names an unknown setting, holds a value that the
                configuration refuses, or its parts do not go together.
        """
        path = Path(path).expanduser()
        content = read_mapping(path, what="sweep", expected="parts such as search: and budget:")
        for name, value in (overrides or {}).items():
            section, _, field = name.replace("-", "_").partition(".")
            content.setdefault("base", {}).setdefault(section, {})[field] = value
        for key in content:
            if key not in cls.model_fields:
                raise ConfigError(f"{path}: a sweep has no part {key!r}. {nearest(str(key), cls.model_fields)}")
        if isinstance(content.get("objective"), dict):
            content["objective"] = [content["objective"]]
        content["name"] = content.get("name") or path.stem
        try:
            spec = cls.model_validate(content)
        except ValidationError as error:
            lines = [
                f"{'.'.join(str(part) for part in detail['loc'])}: {detail['msg'].removeprefix('Value error, ')}"
                for detail in error.errors()
            ]
            raise ConfigError(f"The sweep {path} does not hold:\n  " + "\n  ".join(lines)) from None
        spec.check(path)
        return spec

    def config(self, settings: Mapping[str, Any] | None = None) -> Config:
        """The configuration of some settings: preset, ``base``, then ``settings`` by dotted name."""
        overrides = {
            f"{section}.{name}": value for section, fields in self.base.items() for name, value in fields.items()
        }
        return Config.load(overrides={**overrides, **(settings or {})}, preset=self.preset)

    def check(self, path: Path) -> None:
        """Refuse what does not go together; ConfigError."""
        check_run_name(self.name)
        base = self.config()
        known = {name for name, _, _ in field_names()}
        for name, dimension in self.search.items():
            if name not in known:
                raise ConfigError(f"{path}: search: no setting is called {name!r}. {nearest(name, known)}")
            if name in FIXED or name.partition(".")[0] in (*UPSTREAM, "eval", "scale", "tracking"):
                raise ConfigError(f"{path}: search: {name} is the same for all trials, or the sweep's own to decide.")
            for value in dimension.values:
                self.config({name: value})
            for other in dimension.when:
                if other not in self.search or other == name:
                    raise ConfigError(
                        f"{path}: search: {name} depends on {other!r}, which is not searched. "
                        + nearest(other, [key for key in self.search if key != name])
                    )
        ordered(self.search)
        ranges = [name for name, dimension in self.search.items() if dimension.is_range]
        if self.algorithm.kind == "grid" and ranges:
            raise ConfigError(
                f"{path}: search: {ranges[0]} is an interval, of which a grid has no list of values: give a list, or "
                "algorithm: {kind: random} or {kind: optuna} with budget.trials."
            )
        if self.algorithm.kind != "grid" and self.budget.trials is None:
            raise ConfigError(f"{path}: algorithm {self.algorithm.kind} needs budget.trials: how many settings to try.")
        if len(self.objective) > 1 and (self.algorithm.kind != "optuna" or self.scheduler.kind != "none"):
            raise ConfigError(f"{path}: several objectives go with algorithm optuna and scheduler none only.")
        if self.scheduler.kind == "asha" and self.scheduler.grace > self.budget.measurements:
            raise ConfigError(
                f"{path}: scheduler.grace: got {self.scheduler.grace}, expected at most budget.measurements, which is "
                f"{self.budget.measurements}."
            )
        if self.scheduler.kind == "pbt":
            self._check_population(path)
        if base.train.labels is not None:
            raise ConfigError(f"{path}: train.labels is the sweep's own: give the individuals as data: metadata.csv.")

    def _check_population(self, path: Path) -> None:
        fixed = [name for name in self.search if name not in TAKEN_OVER]
        if fixed:
            raise ConfigError(
                f"{path}: search: {fixed[0]} cannot change in the middle of a training, which scheduler pbt wants; it "
                f"searches {', '.join(TAKEN_OVER)}."
            )
        if any(dimension.when for dimension in self.search.values()):
            raise ConfigError(f"{path}: search: scheduler pbt knows no conditions (when): leave them out.")
        if self.algorithm.kind == "optuna" or len(self.seeds) > 1 or self.objective[0].metric not in MEASURES:
            raise ConfigError(
                f"{path}: scheduler pbt goes with algorithm grid or random, one seed, and an objective of "
                f"{' or '.join(MEASURES)}."
            )
        if self.scheduler.interval >= self.budget.measurements:
            raise ConfigError(
                f"{path}: scheduler.interval: got {self.scheduler.interval}, expected less than budget.measurements, "
                f"which is {self.budget.measurements}."
            )
