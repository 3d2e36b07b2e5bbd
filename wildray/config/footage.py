"""Settings of footage and what is made of it: simulate, detect, mine."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from wildray.config.section import Section
from wildray.units import Duration, Interval


class SimulateConfig(Section):
    """A camera-trap reserve with known individuals."""

    num_videos: int = Field(24, ge=1, le=1_000_000)
    """Videos to make (stills of bursts and time-lapse come on top)."""
    seed: int = Field(0, ge=0)
    """Seed: the same seed and settings give the same files, byte for byte."""
    num_individuals: int | None = Field(None, ge=2)
    """Animals that live in the reserve, of which those that pass a camera are filmed; default 36, or 1.25 per video
    where that is more."""
    num_species: int = Field(5, ge=1, le=5)
    """Of spotted, rosetted, striped, plain with marks, and an insect (the fifth; it needs two macro cameras)."""
    num_cameras: int = Field(6, ge=2, le=10_000)
    """Fixed cameras, each with its own scenery; every third, and at least two of 4 or more, is a macro camera where the
    insect (the fifth species) lives."""
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
    dense_interval: Duration | None = None
    """Time between the frames of a second pass, over the parts where animals are near each other; 0s looks at every
    frame there. Default: no second pass. Part of no digest: it adds frames to a collection that is there already, and
    other settings of it add what they ask for beyond those."""
    dense_where: Literal["company", "animals"] = "company"
    """company: the second pass is over parts where two animals or more are near each other. animals: where any is."""
    dense_near: float = Field(0.5, ge=0, le=100)
    """Two animals are near where the gap between their boxes is at most this share of the boxes' mean side."""
    dense_min_score: float = Field(0.25, ge=0, le=1)
    """Boxes below this score are no reason for a second look."""
    dense_budget: float = Field(4.0, ge=0)
    """Most frames that the second pass adds for each second of footage, in the mean over the media of a call (the first
    pass looks at 2 by default). Where that is not enough the most crowded parts go first."""
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
    """WIDTHxHEIGHT in pixels for results files and MOT ground truth without media and sizes, such as 1920x1080."""
    mot_fps: float | None = Field(None, gt=0, le=1000)
    """MOT ground truth as detections: frames a second of its video. The files say nothing of time, so it is needed."""
    mot_every: int = Field(1, ge=1, le=1_000_000)
    """MOT ground truth: only every so many-th frame is looked at, which is the detection rate."""
    mot_jitter: float = Field(0.05, ge=0, le=1)
    """MOT ground truth: standard deviation of a corner, as a share of the box's width and height."""
    mot_missed: float = Field(0.1, ge=0, lt=1)
    """MOT ground truth: share of the boxes that are missed."""
    mot_false_boxes: float = Field(0.0, ge=0, le=1000)
    """MOT ground truth: false boxes a frame, on average (Poisson), of sizes that true ones have."""
    mot_seed: int = Field(0, ge=0)
    """MOT ground truth: seed of jitter, misses, false boxes and scores."""
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
    gaps: Literal["fixed", "decreasing"] = "fixed"
    """decreasing: the interval is the longest; each frame draws its own, shorter ones more often."""
    linker: Literal["chained", "assigned", "direct"] = "chained"
    """chained: animals are followed from frame to frame, and what one tracklet holds is paired. assigned: one-to-one
    between the frames of a pair. Both refuse what is ambiguous. direct: every two boxes that overlap (published)."""
    min_margin: float = Field(0.07, ge=0, le=1)
    """chained, assigned: a match is refused unless it exceeds every rival by this much IoU (chained: less the weighted
    difference of looks)."""
    look_weight: float = Field(1.0, ge=0, le=10)
    """chained: weight of how different two boxes look, by the colours that detect stored; 0 goes by overlap alone."""
    embeddings: str | None = None
    """chained: digest of vectors that embed made of the crops of these very detections; looks are then compared by them
    and not by colours. A second round of mining, with what a first model has learned."""
    max_missed: int = Field(4, ge=0, le=100)
    """chained: frames in a row in which an animal may be missed before its tracklet ends."""
    link_gap: Duration = Duration("2s")
    """chained: frames further apart than this are not linked; a tracklet ends there."""
    max_animals: int | None = Field(None, ge=1)
    """Frames with more boxes than this stand in no pair."""
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
