import logging

import torch

from wildray.learning.checkpoint import KEEP, State, checkpoints, load_newest, remove_temporary, save_checkpoint
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
