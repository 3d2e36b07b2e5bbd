import json
import logging

from wildray.learning.follow import Follower, epoch_line, eta

EPOCH = {"epoch": 1.0, "step": 5.0, "loss": 4.5, "embedding_rank": 30.0, "embedding_std": 0.4, "mAP": 0.125}


def test_every_new_epoch_is_told_once_and_a_collapse_loudly(tmp_path, caplog):
    seen = []
    progress = {"epoch": 1, "epochs": 3, "step": 2, "num_steps": 15, "loss": 5.0, "images_per_s": 9.0, "eta_s": 61.0}
    (tmp_path / ".progress.json").write_text(json.dumps(progress))
    old = EPOCH | {"epoch": 0.0}
    (tmp_path / "history.json").write_text(json.dumps([old]))
    with caplog.at_level(logging.INFO), Follower(tmp_path, seen.append, num_known=1):
        collapsed = EPOCH | {"epoch": 2.0, "embedding_rank": 1.01}
        (tmp_path / "history.json").write_text(json.dumps([old, EPOCH, collapsed]))
    assert seen == [EPOCH, collapsed]
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert warnings[0].startswith("epoch 2: THE EMBEDDINGS HAVE COLLAPSED")


def test_without_files_nothing_is_told(tmp_path):
    seen = []
    with Follower(tmp_path, seen.append):
        pass
    assert seen == []


def test_lines():
    assert epoch_line(EPOCH) == "1: loss 4.5, embedding_rank 30, embedding_std 0.4, mAP 0.125"
    assert eta(3725.4) == "1:02:05"
