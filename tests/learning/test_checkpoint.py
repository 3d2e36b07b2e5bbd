import logging
import shutil
from types import SimpleNamespace

import pytest
import torch

from wildray.errors import ConfigError, StoreError
from wildray.learning.checkpoint import (
    KEEP,
    Shard,
    State,
    check_newest,
    checkpoints,
    load_newest,
    remove_temporary,
    save_checkpoint,
)
from wildray.store import Store

CPU = torch.device("cpu")


def some_state(step: int) -> State:
    weights = {"w": torch.full((3,), float(step))}
    return State(step=step, epoch=1, epoch_loss=0.5, history=[{"loss": 1.0}], method=weights, optimizer={"lr": 0.1})


def test_the_newest_comes_back_and_older_ones_go(tmp_path):
    store, run_dir = Store(str(tmp_path)), tmp_path / "models" / "r"
    for step in (2, 10, 9):
        save_checkpoint(store, run_dir, some_state(step))
    assert [path.name for path in checkpoints(run_dir)] == ["step-000000010.pt", "step-000000009.pt"][:KEEP]
    state = load_newest(run_dir, CPU)
    assert state is not None
    assert torch.equal(state.method["w"], torch.full((3,), 10.0))
    assert (state.step, state.epoch, state.epoch_loss, state.history) == (10, 1, 0.5, [{"loss": 1.0}])


def test_a_torn_checkpoint_is_passed_over_with_a_warning(tmp_path, caplog):
    store, run_dir = Store(str(tmp_path)), tmp_path / "models" / "r"
    save_checkpoint(store, run_dir, some_state(1))
    save_checkpoint(store, run_dir, some_state(2))
    newest = checkpoints(run_dir)[0]
    for content in (newest.read_bytes()[:-100], b"", b"nothing of the kind"):
        newest.write_bytes(content)
        with caplog.at_level(logging.WARNING):
            state = load_newest(run_dir, CPU)
        assert state is not None
        assert state.step == 1
    assert "step-000000002" in caplog.text
    assert load_newest(tmp_path / "models" / "other", CPU) is None


def test_a_full_disk_is_said_to_be_one(tmp_path, monkeypatch):
    def torn(content, path):
        path.write_bytes(b"part of it")
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 60250560 vs 60250448")

    store, run_dir = Store(str(tmp_path)), tmp_path / "models" / "r"
    save_checkpoint(store, run_dir, some_state(1))
    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(RuntimeError, match="unexpected pos"):
        save_checkpoint(store, run_dir, some_state(2))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(StoreError, match="the disk is full: free some space"):
        save_checkpoint(store, run_dir, some_state(2))
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["step-000000001.pt"]


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    run_dir = tmp_path / "models" / "r"
    (run_dir / "checkpoints").mkdir(parents=True)
    torch.save({"step": Evil()}, run_dir / "checkpoints" / "step-000000001.pt")
    assert load_newest(run_dir, CPU) is None
    assert not (tmp_path / "ran").exists()


def test_what_a_killed_writer_left_is_removed(tmp_path):
    run_dir = tmp_path / "models" / "r"
    save_checkpoint(Store(str(tmp_path)), run_dir, some_state(1))
    (run_dir / "checkpoints" / ".step-000000002.pt.abc").write_bytes(b"half")
    remove_temporary(run_dir)
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["step-000000001.pt"]


class KilledError(Exception):
    """Stands for a signal that no handler sees."""


def killed() -> None:
    raise KilledError


def save_shards(store, run_dir, step: int, *, num_workers: int = 2, strategy: str = "zero2") -> None:
    """What the workers do, one after the other: the last one first, since worker 0 gives the folder its name."""
    for rank in reversed(range(num_workers)):
        state = some_state(step)
        state.method = {"w": torch.full((3,), 100.0 * step + rank)}
        save_checkpoint(store, run_dir, state, shard=Shard(strategy, rank, num_workers))


def test_every_worker_gets_its_own_part_back(tmp_path):
    store, run_dir = Store(str(tmp_path)), tmp_path / "models" / "r"
    for step in (2, 4, 6):
        save_shards(store, run_dir, step)
    assert [path.name for path in checkpoints(run_dir)] == ["step-000000006", "step-000000004"][:KEEP]
    for rank in range(2):
        state = load_newest(run_dir, CPU, shard=Shard("zero2", rank, 2))
        assert state is not None
        assert (state.step, float(state.method["w"][0])) == (6, 600.0 + rank)
    assert not list((run_dir / "checkpoints").glob(".*"))


def test_a_checkpoint_counts_only_when_all_parts_are_there(tmp_path):
    store, run_dir = Store(str(tmp_path)), tmp_path / "models" / "r"
    save_shards(store, run_dir, 2)
    with pytest.raises(KilledError):  # worker 0 wrote its part, and died before the others had theirs
        save_checkpoint(store, run_dir, some_state(4), shard=Shard("zero2", 0, 2), meet=killed)
    state = load_newest(run_dir, CPU, shard=Shard("zero2", 0, 2))
    assert state is not None
    assert state.step == 2
    remove_temporary(run_dir)
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["step-000000002"]


def test_all_workers_go_back_where_one_cannot_read_its_part(tmp_path):
    store, run_dir = Store(str(tmp_path)), tmp_path / "models" / "r"
    save_shards(store, run_dir, 2)
    save_shards(store, run_dir, 4)
    (run_dir / "checkpoints" / "step-000000004" / "zero2-1-of-2.pt").write_bytes(b"torn")
    votes = iter([False, True])  # of both workers: step 4 cannot be read by worker 1
    state = load_newest(run_dir, CPU, shard=Shard("zero2", 0, 2), agreed=lambda readable: readable and next(votes))
    assert state is not None
    assert state.step == 2


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (None, "is shared out .it holds zero2-0-of-2.pt, zero2-1-of-2.pt., expected one that is whole"),
        (Shard("zero2", 0, 3), "expected zero2-0-of-3.pt: go on with the --scale.strategy and the --scale.workers"),
        (Shard("zero3", 1, 2), "expected zero3-1-of-2.pt"),
    ],
)
def test_parts_of_other_workers_or_another_strategy_are_refused(tmp_path, wanted, message):
    run_dir = tmp_path / "models" / "r"
    save_shards(Store(str(tmp_path)), run_dir, 2)
    with pytest.raises(ConfigError, match=message):
        load_newest(run_dir, CPU, shard=wanted)
    with pytest.raises(ConfigError, match=message):
        check_newest(run_dir, wanted)
    check_newest(run_dir, Shard("zero2", 0, 2))


def test_a_whole_checkpoint_is_no_part(tmp_path):
    run_dir = tmp_path / "models" / "r"
    save_checkpoint(Store(str(tmp_path)), run_dir, some_state(1))
    with pytest.raises(ConfigError, match=r"is whole, .* go on with --scale.strategy ddp"):
        load_newest(run_dir, CPU, shard=Shard("zero1", 0, 2))
