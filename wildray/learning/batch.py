"""What flows from the loader to a method: crops as they were read, then views of them.

In: nothing. Out: two frozen records. ``Crops`` is a batch before augmentation, on the host and in bytes; ``Batch`` what
a method's ``forward`` gets, on the training device. A dict of tensors would be shorter and would hide which keys a
method may count on.

Shapes: B samples on this worker, S sources (1: self views, 2: anchor and positive), V views, P crop side.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from torch import Tensor


@dataclass(frozen=True)
class Facts:
    """What is known of each sample besides its pixels; X is S in ``Crops`` and V in ``Batch``.

    Attributes:
        detection_id: (X, B) int64.
        frame_key: (X, B) int64, equal where, and only where, two crops are of one frame.
        xyxy_px: (X, B, 4) float32 box in pixels of the frame, half-open.
        camera_id: (X, B) int64, a hash of the camera's name.
        captured_at_s: (X, B) float64 time of the frame, seconds since 1970 UTC; NaN where the clock is unknown.
    """

    detection_id: Tensor
    frame_key: Tensor
    xyxy_px: Tensor
    camera_id: Tensor
    captured_at_s: Tensor

    def of_sources(self, sources: Tensor) -> Facts:
        """The facts of views, given the source (V,) each view was made of."""
        return replace(self, **{field.name: getattr(self, field.name)[sources] for field in fields(self)})


@dataclass(frozen=True)
class Crops:
    """One worker's part of a batch before augmentation.

    Attributes:
        images: (S, B, 3, P, P) uint8 RGB.
        index: (B,) int64 rows of the table, plus a multiple of its length where a row comes again in an epoch; the
            random numbers of augmentation come from it.
        tracklet_id: (B,) int64, equal where pairs join the crops: surely the same animal.
        facts: Of each source.
        labels: (B,) int64 identities from 0, or None without labels.
        box: (S, B, 4) float32 corners of the animal's box in shares of the crop's sides.
        background: (S, B, 3, P, P) uint8, the clip's background at the crop's place; None where no view wants it.
        has_background: (S, B) bool, where it is known; None as above.
        scenery: (K, S, B, 3, P, P) uint8, backgrounds of other cameras, for each view of a source one of its own: two
            positives with the same foreign scenery would be told by it. None where no view wants it.
    """

    images: Tensor
    index: Tensor
    tracklet_id: Tensor
    facts: Facts
    labels: Tensor | None = None
    box: Tensor | None = None
    background: Tensor | None = None
    has_background: Tensor | None = None
    scenery: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """One worker's part of a batch.

    Attributes:
        views: V tensors (B, 3, h, w) float32 RGB in [0, 1]; sizes may differ between views.
        labels: (B,) int64 identities from 0, or None without labels.
        tracklet_id: (B,) int64.
        facts: Of each view.
        seeds: (B,) int64 on the host, of what a method draws at random for a sample: a function of the run's seed, the
            epoch and ``Crops.index`` alone, as the views are.
    """

    views: list[Tensor]
    labels: Tensor | None
    tracklet_id: Tensor
    facts: Facts
    seeds: Tensor

    @property
    def num_samples(self) -> int:
        """B."""
        return len(self.tracklet_id)

    def split(self, num_parts: int) -> list[Batch]:
        """The batch in equal parts, in order; ``num_parts`` divides B."""
        if num_parts == 1:
            return [self]
        each = self.num_samples // num_parts
        assert each * num_parts == self.num_samples, f"{self.num_samples} samples in {num_parts} parts"
        return [self._rows(slice(begin, begin + each)) for begin in range(0, self.num_samples, each)]

    def _rows(self, rows: slice) -> Batch:
        of_facts = {field.name: getattr(self.facts, field.name)[:, rows] for field in fields(self.facts)}
        return Batch(
            views=[view[rows] for view in self.views],
            labels=None if self.labels is None else self.labels[rows],
            tracklet_id=self.tracklet_id[rows],
            facts=Facts(**of_facts),
            seeds=self.seeds[rows],
        )
