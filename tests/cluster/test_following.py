"""Following a job: its log without gaps or lines twice, its exit status, and what Ctrl-C does to it."""

import argparse
import asyncio
import io
from types import SimpleNamespace

import pytest
from ray.job_submission import JobStatus

from wildray.cli import submit


class Client:
    """Stands for Ray's: a job whose log comes in pieces, over a connection that may break."""

    def __init__(self, pieces, *, breaks_after=(), status="SUCCEEDED", code=0, interrupted=False):
        self.log, self.pieces, self.breaks = "".join(pieces), pieces, list(breaks_after)
        self.status, self.code, self.interrupted = status, code, interrupted
        self.over, self.stopped = False, []

    async def tail_job_logs(self, name):
        if self.interrupted:
            raise KeyboardInterrupt
        limit = self.breaks.pop(0) if self.breaks else None
        for piece in self.pieces[:limit]:
            yield piece
        if limit is not None:
            raise RuntimeError("the connection broke")
        self.over = True

    def get_job_info(self, name):
        status = JobStatus(self.status) if self.over else JobStatus.RUNNING
        return SimpleNamespace(status=status, driver_exit_code=self.code, message="why")

    def get_job_status(self, name):
        return self.get_job_info(name).status

    def get_job_logs(self, name):
        return self.log

    def stop_job(self, name):
        self.stopped.append(name)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(submit, "POLL_S", 0.0)


def arguments(*, json=False):
    return argparse.Namespace(json=json, address="http://h:1")


@pytest.mark.parametrize("breaks", [[], [0], [1], [2, 0, 3]])
def test_a_log_is_shown_once_and_whole(breaks):
    client = Client(["first\n", "sec", "ond\n", "third\n"], breaks_after=breaks)
    shown = io.StringIO()
    asyncio.run(submit._tailed(client, "a", shown))
    assert shown.getvalue() == client.log


@pytest.mark.parametrize(
    ("status", "code", "expected"), [("SUCCEEDED", 0, 0), ("FAILED", 2, 2), ("FAILED", None, 1), ("STOPPED", None, 1)]
)
def test_the_exit_status_is_the_jobs(status, code, expected, capsys):
    client = Client(["x\n", '{"num_pairs": 3}\n'], status=status, code=code)
    found = submit._follow(client, "a", arguments(json=True))
    assert found == {"status": status, "exit_status": expected, "result": {"num_pairs": 3}}
    assert capsys.readouterr().out == "", "stdout is for the result alone"


@pytest.mark.parametrize(
    ("terminal", "answer", "stopped"), [(True, "y\n", ["a"]), (True, "\n", []), (False, "y\n", [])]
)
def test_ctrl_c_asks_where_somebody_can_answer(terminal, answer, stopped, monkeypatch, capsys):
    stdin = io.StringIO(answer)
    stdin.isatty = lambda: terminal
    monkeypatch.setattr(submit.sys, "stdin", stdin)
    monkeypatch.setattr(submit.sys.stderr, "isatty", lambda: terminal, raising=False)
    client = Client(["x\n"], interrupted=True)
    assert submit._follow(client, "a", arguments())["exit_status"] == 130
    assert client.stopped == stopped
    said = capsys.readouterr().err
    assert ("Stop the job a too?" in said) == terminal
    assert ("wildray submit --stop a --address http://h:1" in said) == (not stopped)
