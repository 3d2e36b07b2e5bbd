"""The contrastive losses as loops over single views, term by term."""

import math

import torch.nn.functional as F


def rows_of(batch):
    """What is known of each view, in the order of (sample, view)."""
    facts = batch.facts
    return [
        {
            "sample": b,
            "view": v,
            "tracklet": int(batch.tracklet_id[b]),
            "frame": int(facts.frame_key[v, b]),
            "camera": int(facts.camera_id[v, b]),
            "time": float(facts.captured_at_s[v, b]),
            "box": facts.xyxy_px[v, b].tolist(),
        }
        for b in range(batch.num_samples)
        for v in range(len(batch.views))
    ]


def box_iou(one, other) -> float:
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / (sum(areas) - width * height) if all(area > 0 for area in areas) else math.nan


def relation(one, other, *, same_frame_negatives: bool, same_camera_s: float) -> str:
    if one["sample"] == other["sample"]:
        return "positive"
    if same_frame_negatives and one["frame"] == other["frame"] and box_iou(one["box"], other["box"]) < 0.1:
        return "negative"
    if one["tracklet"] == other["tracklet"]:
        return "neutral"
    if one["camera"] == other["camera"] and abs(one["time"] - other["time"]) < same_camera_s:
        return "neutral"
    return "negative"


def term(anchor, positive, negatives, temperature: float) -> float:
    """-log of the positive's share among itself and the negatives."""

    def score(other) -> float:
        return math.exp(float(F.normalize(anchor, dim=0) @ F.normalize(other, dim=0)) / temperature)

    return -math.log(score(positive) / (score(positive) + sum(score(other) for other in negatives)))


def nt_xent(z, rows, *, temperature: float, **rules) -> float:
    """Equation 1 of arXiv 2002.05709 over every two views of a sample; z (N, P) in the order of ``rows``."""
    terms = []
    for i, anchor in enumerate(rows):
        negatives = [z[k] for k, other in enumerate(rows) if relation(anchor, other, **rules) == "negative"]
        terms += [
            term(z[i], z[j], negatives, temperature)
            for j, other in enumerate(rows)
            if j != i and other["sample"] == anchor["sample"]
        ]
    return sum(terms) / len(terms)


def moco(q, k, rows, queue, *, temperature: float, **rules) -> float:
    """Algorithm 1 of arXiv 2104.02057 with former keys, a list of (key, row): each query with each other view's key."""
    terms = []
    for i, anchor in enumerate(rows):
        former = [key for key, other in queue if relation(anchor, other | {"sample": -1}, **rules) == "negative"]
        for j, positive in enumerate(rows):
            if positive["sample"] != anchor["sample"] or positive["view"] == anchor["view"]:
                continue
            negatives = [
                k[n]
                for n, other in enumerate(rows)
                if other["view"] == positive["view"] and relation(anchor, other, **rules) == "negative"
            ]
            terms.append(term(q[i], k[j], negatives + former, temperature))
    return sum(terms) / len(terms)
