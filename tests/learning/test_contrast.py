import contrast_reference as reference
import pytest
import torch
from learning_ddp import SAME_CAMERA_S, make_case, part_of_batch
from lightly.loss import NTXentLoss

from wildray.config import Config
from wildray.learning import gathering
from wildray.learning.contrast import KeyQueue, Known, Rules, known_of, multi_view_nt_xent, nt_xent, relations

RULES = Rules(same_frame_negatives=True, same_camera_s=SAME_CAMERA_S)


def known(**columns) -> Known:
    """Views that differ in everything, but for the columns given."""
    num = len(next(iter(columns.values())))
    far = torch.arange(num)
    facts = {
        "sample": far,
        "tracklet_id": far,
        "frame_key": far,
        "camera_id": far,
        "captured_at_s": 1e9 + 1e6 * far.double(),
        "xyxy_px": torch.tensor([[0.0, 0.0, 10.0, 10.0]]).double().repeat(num, 1),
    }
    given = {name: torch.as_tensor(value, dtype=facts[name].dtype) for name, value in columns.items()}
    return Known(**(facts | given))


def vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def strangers(num_samples: int, num_views: int) -> Known:
    return known(sample=torch.arange(num_samples).repeat_interleave(num_views))


def test_two_views_without_facts_give_lightlys_loss_and_gradient():
    z = vectors(7, 2, 5)
    ours, theirs = z.clone().requires_grad_(), z.clone().requires_grad_()
    loss = multi_view_nt_xent(ours, strangers(7, 2), rules=Rules(), temperature=0.3)
    expected = NTXentLoss(temperature=0.3)(theirs[:, 0], theirs[:, 1])
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-6)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["temporal", "combined"])
@pytest.mark.parametrize("rules", [RULES, Rules(False, SAME_CAMERA_S), Rules(True, 0.0), Rules(False, 0.0)], ids=str)
def test_relations_and_loss_equal_the_loop(kind, rules):
    batch = part_of_batch(make_case("simclr", kind, norm=False), 0, rank=0, num_workers=1)
    facts, rows = known_of(batch), reference.rows_of(batch)
    as_words = {"same_frame_negatives": rules.same_frame_negatives, "same_camera_s": rules.same_camera_s}
    positive, negative = relations(facts, facts, rules)
    found = [[reference.relation(one, other, **as_words) for other in rows] for one in rows]
    assert positive.tolist() == [[word == "positive" for word in line] for line in found]
    assert negative.tolist() == [[word == "negative" for word in line] for line in found]
    z = vectors(batch.num_samples, len(batch.views), 6)
    loss = multi_view_nt_xent(z, facts, rules=rules, temperature=0.2)
    assert abs(float(loss) - reference.nt_xent(z.flatten(0, 1), rows, temperature=0.2, **as_words)) < 1e-5


def test_every_rule_has_its_say_in_order():
    apart, near = [[0.0, 0.0, 10.0, 10.0], [9.5, 0.0, 19.5, 10.0]], [[0.0, 0.0, 10.0, 10.0], [8.0, 0.0, 18.0, 10.0]]
    one_camera = {"camera_id": [3, 3], "captured_at_s": [1e9, 1e9 + 999.0]}

    def word(rules: Rules = RULES, **columns) -> str:
        facts = known(**columns)
        positive, negative = relations(facts.rows(slice(0, 1)), facts.rows(slice(1, 2)), rules)
        return "positive" if positive else "negative" if negative else "neutral"

    assert word(tracklet_id=[1, 2]) == "negative"
    assert word(tracklet_id=[1, 1]) == "neutral"
    assert word(**one_camera) == "neutral"
    assert word(**(one_camera | {"captured_at_s": [1e9, 1e9 + 1000.0]})) == "negative"
    assert word(**(one_camera | {"captured_at_s": [1e9, float("nan")]})) == "negative"
    assert word(Rules(same_camera_s=0.0), **one_camera) == "negative"
    # boxes of one frame: overlap of 5 / 195 is certain, of 20 / 180 is not
    assert word(**one_camera, frame_key=[5, 5], xyxy_px=apart) == "negative"
    assert word(**one_camera, frame_key=[5, 5], xyxy_px=near) == "neutral"
    assert word(Rules(False, 1000.0), **one_camera, frame_key=[5, 5], xyxy_px=apart) == "neutral"
    assert word(tracklet_id=[1, 1], frame_key=[5, 5], xyxy_px=apart) == "negative"
    assert word(tracklet_id=[1, 1], frame_key=[5, 5], xyxy_px=[[0.0] * 4, [0.0] * 4]) == "neutral"
    assert word(tracklet_id=[1, 1], frame_key=[5, 5], xyxy_px=[[float("nan")] * 4, apart[0]]) == "neutral"
    assert word(sample=[4, 4], frame_key=[5, 5], xyxy_px=apart) == "positive"


def test_rules_come_from_the_configuration():
    config = Config.load(overrides={"method.same_camera_neutral": "1h", "method.same_frame_negatives": False})
    assert Rules.of(config.method) == Rules(False, 3600.0)
    assert Rules.of(Config().method) == Rules(True, 0.0)


def test_a_batch_of_one_tracklet_gives_nothing_and_no_nan():
    z = vectors(4, 3, 5).requires_grad_()
    facts = known(sample=torch.arange(4).repeat_interleave(3), tracklet_id=torch.zeros(12, dtype=torch.int64))
    loss = multi_view_nt_xent(z, facts, rules=Rules(), temperature=0.05)
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(z.grad, torch.zeros_like(z))


def test_a_low_temperature_stays_finite():
    z = vectors(6, 2, 4).requires_grad_()
    loss = multi_view_nt_xent(z, strangers(6, 2), rules=Rules(), temperature=1e-3)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(z.grad).all()


def test_neutral_views_move_nothing():
    anchor, others = vectors(1, 4), vectors(3, 4, seed=1).requires_grad_()
    positive, negative = torch.tensor([[True, False, False]]), torch.tensor([[False, True, False]])
    nt_xent(anchor, others, positive, negative, temperature=0.2).backward()
    moved = others.grad.abs().sum(dim=1)
    assert moved[2] == 0
    assert (moved[:2] > 0).all()


def test_facts_survive_their_packing_bit_by_bit():
    batch = part_of_batch(make_case("simclr", "temporal", norm=False), 0, rank=0, num_workers=1)
    facts = known_of(batch)
    again = Known.of_packed(facts.sample, facts.packed())
    for name, value in vars(facts).items():
        assert torch.equal(torch.nan_to_num(getattr(again, name), nan=-7.0), torch.nan_to_num(value, nan=-7.0)), name
    assert facts.captured_at_s.isnan().sum() == 2
    assert torch.equal(facts.xyxy_px[1], batch.facts.xyxy_px[1, 0].double())


def test_the_queue_keeps_the_newest_keys_and_an_empty_place_repels_nobody():
    queue = KeyQueue(5, 2)
    anchors = known(sample=torch.arange(2))
    assert not queue.negatives(anchors, Rules()).any()
    keys = torch.arange(16.0).view(8, 2)
    facts = known(sample=torch.arange(8), tracklet_id=torch.arange(8) + 50)
    queue.push(keys[:3], facts.rows(slice(0, 3)))
    assert queue.negatives(anchors, Rules()).sum(dim=1).tolist() == [3, 3]
    queue.push(keys[3:6], facts.rows(slice(3, 6)))
    assert sorted(queue.keys[:, 0].tolist()) == [2.0, 4.0, 6.0, 8.0, 10.0]  # the first of six has gone
    tracklet_of = dict(zip(queue.keys[:, 0].tolist(), queue.facts[:, 0].tolist(), strict=True))
    assert tracklet_of == {2.0: 51, 4.0: 52, 6.0: 53, 8.0: 54, 10.0: 55}
    own = known(sample=torch.arange(2), tracklet_id=[53, 7])
    assert queue.negatives(own, Rules()).sum(dim=1).tolist() == [4, 5]
    queue.push(keys, facts)  # more than it holds
    assert sorted(queue.keys[:, 0].tolist()) == [6.0, 8.0, 10.0, 12.0, 14.0]
    KeyQueue(0, 2).push(keys, facts)


def test_what_is_gathered_lies_in_one_piece(monkeypatch):
    """NCCL refuses other strides; gloo, with which distributed tests run, does not."""
    seen = []
    monkeypatch.setattr(gathering, "world_size", lambda: 2)
    monkeypatch.setattr(gathering, "gather", lambda tensor: (seen.append(tensor.is_contiguous()), [tensor, tensor])[1])
    gathering.gathered(torch.rand(2, 3, 4).transpose(0, 1))
    assert seen == [True]
