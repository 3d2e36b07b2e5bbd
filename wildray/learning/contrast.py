"""Contrastive losses over the views of all workers, and who may be a negative of whom.

In: projections, and the facts of the crops they were made of. Out: the NT-Xent loss for any number of views. Every two
views of a sample are positives. What repels is decided from facts: crops of one tracklet surely show one animal, crops
of one camera within a short time probably do, boxes of one frame that hardly overlap surely do not. lightly's
NTXentLoss, which this equals for two views without such facts, takes every other sample for another animal.

Shapes: B samples on this worker, V views, W workers, M = W * B, N anchors, K candidates, P dimensions of a projection.
Rows of all views are in the order of (worker, sample, view).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wildray.config import MethodConfig
from wildray.learning.batch import Batch
from wildray.learning.gathering import first_row, gathered, gathered_facts

CERTAIN_IOU = 0.1
"""Boxes of one frame that overlap by less are two animals; a detector's two boxes of one animal overlap by more."""
NUM_FACTS = 8
"""Columns of packed facts: three ids, the time, four corners."""
LOWEST = -1e30
"""Logit of what does not repel. Minus infinity would do for the loss, but logsumexp of nothing else has no gradient."""


@dataclass(frozen=True)
class Known:
    """What is known of N views.

    Attributes:
        sample: (N,) int64, equal where, and only where, views are of one sample of one batch.
        tracklet_id: (N,) int64.
        frame_key: (N,) int64.
        camera_id: (N,) int64.
        captured_at_s: (N,) float64, NaN where the clock is unknown.
        xyxy_px: (N, 4) float64.
    """

    sample: Tensor
    tracklet_id: Tensor
    frame_key: Tensor
    camera_id: Tensor
    captured_at_s: Tensor
    xyxy_px: Tensor

    @classmethod
    def of_packed(cls, sample: Tensor, packed: Tensor) -> Known:
        """What ``packed`` was made of, and the samples (N,)."""
        ids, bits = packed[:, :3], packed[:, 3:].contiguous().view(torch.float64)
        return cls(sample, ids[:, 0], ids[:, 1], ids[:, 2], bits[:, 0], bits[:, 1:])

    def packed(self) -> Tensor:
        """All but the samples as (N, NUM_FACTS) int64, floats by their bits: one message, and no cast can harm it."""
        floats = torch.cat([self.captured_at_s.unsqueeze(1), self.xyxy_px], dim=1).double()
        ids = torch.stack([self.tracklet_id, self.frame_key, self.camera_id], dim=1)
        return torch.cat([ids, floats.contiguous().view(torch.int64)], dim=1)

    def rows(self, rows: slice) -> Known:
        """Some of the views."""
        return replace(self, **{field.name: getattr(self, field.name)[rows] for field in fields(self)})


RULES = frozenset({"same_frame_negatives", "same_camera_neutral"})
"""Fields of ``config.method`` that ``Rules.of`` reads."""


@dataclass(frozen=True)
class Rules:
    """Which facts count.

    Attributes:
        same_frame_negatives: Whether boxes of one frame that hardly overlap always repel.
        same_camera_s: Crops of one camera less than this apart, in seconds, do not repel.
    """

    same_frame_negatives: bool = True
    same_camera_s: float = 0.0

    @classmethod
    def of(cls, config: MethodConfig) -> Rules:
        """The configured rules."""
        return cls(config.same_frame_negatives, config.same_camera_neutral.seconds)


def known_of(batch: Batch) -> Known:
    """What is known of the views of all workers: (M * V,) rows, on the device of the views."""
    device, num_views = batch.views[0].device, len(batch.views)

    def by_sample(fact: Tensor) -> Tensor:
        return fact.to(device).transpose(0, 1).flatten(0, 1)

    facts = batch.facts
    mine = Known(
        sample=torch.arange(batch.num_samples, device=device).repeat_interleave(num_views),
        tracklet_id=batch.tracklet_id.to(device).repeat_interleave(num_views),
        frame_key=by_sample(facts.frame_key),
        camera_id=by_sample(facts.camera_id),
        captured_at_s=by_sample(facts.captured_at_s),
        xyxy_px=by_sample(facts.xyxy_px),
    )
    packed = gathered_facts(mine.packed())
    sample = torch.arange(len(packed) // num_views, device=device).repeat_interleave(num_views)
    return Known.of_packed(sample, packed)


def relations(anchors: Known, others: Known, rules: Rules) -> tuple[Tensor, Tensor]:
    """Who attracts and who repels whom; what does neither is left out of the loss.

    Views of one sample attract (a view and itself too: the caller takes that out). Of the rest, first rule first:
    boxes of one frame with an IoU under ``CERTAIN_IOU`` repel; crops of one tracklet, and crops of one camera less than
    ``rules.same_camera_s`` apart, do nothing; all others repel. Boxes without an area are not known to differ, and
    unknown times are not known to be near.

    Args:
        anchors: N views.
        others: K views.
        rules: Which facts count.

    Returns:
        Positives (N, K) and negatives (N, K), bool, never both.
    """
    positive = anchors.sample.unsqueeze(1) == others.sample
    neutral = anchors.tracklet_id.unsqueeze(1) == others.tracklet_id
    if rules.same_camera_s > 0:
        apart_s = (anchors.captured_at_s.unsqueeze(1) - others.captured_at_s).abs()
        neutral |= (anchors.camera_id.unsqueeze(1) == others.camera_id) & (apart_s < rules.same_camera_s)
    negative = ~neutral
    if rules.same_frame_negatives:
        same_frame = anchors.frame_key.unsqueeze(1) == others.frame_key
        negative |= same_frame & (_iou(anchors.xyxy_px, others.xyxy_px) < CERTAIN_IOU)
    return positive, negative & ~positive


def nt_xent(
    anchor_np: Tensor, other_kp: Tensor, positive_nk: Tensor, negative_nk: Tensor, *, temperature: float
) -> Tensor:
    """Normalised-temperature cross-entropy (arXiv 2002.05709, equation 1) with several positives and chosen negatives.

    One term for each positive pair: -log(e^p / (e^p + the sum of e^n over the anchor's negatives n)), p and n cosines
    over the temperature. Other positives are not in the denominator, so that they do not repel each other. An anchor
    without negatives gives 0, with a gradient of 0.

    Args:
        anchor_np: N projections of any length.
        other_kp: K projections.
        positive_nk: (N, K) bool; every anchor must have equally many, or the mean over workers is not
            that of the joined batch.
        negative_nk: (N, K) bool.
        temperature: Above 0.

    Returns:
        Mean () over the positive pairs, float32.
    """
    logits = F.normalize(anchor_np.float(), dim=1) @ F.normalize(other_kp.float(), dim=1).T / temperature
    repelling = torch.logsumexp(logits.masked_fill(~negative_nk, LOWEST), dim=1, keepdim=True)
    terms = F.softplus(repelling - logits)
    return torch.where(positive_nk, terms, 0.0).sum() / positive_nk.sum()


def multi_view_nt_xent(z_bvp: Tensor, known: Known, *, rules: Rules, temperature: float) -> Tensor:
    """NT-Xent of this worker's views against the views of all workers.

    Args:
        z_bvp: Projections; B and V are equal on all workers.
        known: Of all workers' views, as ``known_of`` gives it.
        rules: Which facts count.
        temperature: Above 0.

    Returns:
        Mean () over this worker's positive pairs; the mean over workers is the loss of the joined batch.
    """
    num_samples, num_views = z_bvp.shape[:2]
    first = first_row(num_samples) * num_views
    mine = slice(first, first + num_samples * num_views)
    positive, negative = relations(known.rows(mine), known, rules)
    positive[:, mine].fill_diagonal_(False)
    others = gathered(z_bvp).flatten(0, 1)
    return nt_xent(z_bvp.flatten(0, 1), others, positive, negative, temperature=temperature)


class KeyQueue(nn.Module):
    """Keys of former batches with the facts of their crops; equal on all workers, as all push the keys of all.

    Args:
        size: Q, how many are kept; 0 keeps none.
        dim: P.
    """

    keys: Tensor
    facts: Tensor
    pushed: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(size, dim))
        self.register_buffer("facts", torch.zeros(size, NUM_FACTS, dtype=torch.int64))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))

    def negatives(self, anchors: Known, rules: Rules) -> Tensor:
        """(N, Q) bool, whom the keys repel: never by a place that no key has come to yet."""
        no_sample = torch.full_like(self.facts[:, 0], -1)  # of no sample of this batch
        _, negative = relations(anchors, Known.of_packed(no_sample, self.facts), rules)
        return negative & (torch.arange(len(self.keys), device=self.keys.device) < self.pushed)

    @torch.no_grad()
    def push(self, keys_kp: Tensor, known: Known) -> None:
        """Put keys, and what is known of them, in the place of the oldest; of more than Q the last ones."""
        num = min(len(keys_kp), len(self.keys))
        if num == 0:
            return
        at = (self.pushed + torch.arange(num, device=keys_kp.device)) % len(self.keys)
        self.keys[at], self.facts[at] = keys_kp[-num:].to(self.keys.dtype), known.packed()[-num:]
        self.pushed += num


def _iou(a: Tensor, b: Tensor) -> Tensor:
    """(N, 4), (K, 4) boxes to (N, K) in [0, 1]; NaN where a box has no area or is unknown."""

    def area(xyxy: Tensor) -> Tensor:
        return (xyxy[..., 2:] - xyxy[..., :2]).clamp(min=0).prod(dim=-1)

    top_left = torch.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    overlap = area(torch.cat([top_left, bottom_right], dim=-1))
    first, second = area(a)[:, None], area(b)[None]
    return torch.where((first > 0) & (second > 0), overlap / (first + second - overlap), torch.nan)
