"""The preemption agent against a metadata service on loopback, and a stand-in for Ray's command."""

import datetime
import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import preemption
import pytest
from metadata_service import Metadata

AGENT = Path(preemption.__file__)
NODE = "ab" * 28


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    service = Metadata()
    yield service
    service.changed.set()
    service.server.shutdown()
    service.server.server_close()


@pytest.fixture
def ray(tmp_path: Path) -> Path:
    """A stand-in for the ray command: it writes down its words, and fails as often as the file ``failures`` says."""
    script = tmp_path / "ray"
    script.write_text(
        f"#!{sys.executable}\n"
        "import json, pathlib, sys\n"
        "here = pathlib.Path(__file__).parent\n"
        "left = here / 'failures'\n"
        "with open(here / 'calls', 'a') as file: file.write(json.dumps(sys.argv[1:]) + '\\n')\n"
        "if left.exists() and int(left.read_text()) > 0:\n"
        "    left.write_text(str(int(left.read_text()) - 1))\n"
        "    sys.exit('no head here')\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script


def calls(ray: Path) -> list[list[str]]:
    file = ray.parent / "calls"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def drain_with(ray: Path) -> Callable[[preemption.Notice], bool]:
    return lambda notice: preemption.drain_node(notice, ray=str(ray), address="10.0.0.1:6379", node_id=NODE)


def value(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


def interruption_in(seconds: float) -> str:
    at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    return json.dumps({"action": "terminate", "time": at.strftime("%Y-%m-%dT%H:%M:%SZ")})


def test_aws_interruption_drains_with_the_seconds_that_are_left(metadata, ray):
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            metadata.documents["spot/instance-action"] = (200, interruption_in(100))

    preemption.watch(preemption.Aws(metadata.url, rebalance=True), drain_with(ray), sleep=sleep)
    (words,) = calls(ray)
    assert words[:3] == ["drain-node", "--node-id", NODE]
    assert value(words, "--reason") == "DRAIN_NODE_REASON_PREEMPTION"
    assert value(words, "--address") == "10.0.0.1:6379"
    assert "terminate" in value(words, "--reason-message")
    assert 95 <= int(value(words, "--deadline-remaining-seconds")) <= 100
    assert pauses == [preemption.AWS_POLL_S] * 2
    assert len(metadata.tokens) == 1, "the token is kept, not asked for with every question"


def test_aws_rebalance_drains_once_without_a_deadline_and_the_interruption_then_sets_it(metadata, ray):
    metadata.documents["events/recommendations/rebalance"] = (200, '{"noticeTime": "2026-01-01T00:00:00Z"}')
    pauses = 0

    def sleep(_: float) -> None:
        nonlocal pauses
        pauses += 1
        if pauses == 3:
            metadata.documents["spot/instance-action"] = (200, interruption_in(120))

    preemption.watch(preemption.Aws(metadata.url, rebalance=True), drain_with(ray), sleep=sleep)
    early, late = calls(ray)
    assert "--deadline-remaining-seconds" not in early
    assert int(value(late, "--deadline-remaining-seconds")) > 110


def test_aws_rebalance_can_be_ignored(metadata):
    metadata.documents["events/recommendations/rebalance"] = (200, "{}")
    assert preemption.Aws(metadata.url, rebalance=False).ask() is None


def test_aws_expired_token_is_renewed(metadata):
    cloud = preemption.Aws(metadata.url, rebalance=True)
    assert cloud.ask() is None
    metadata.tokens.append("another")  # what the agent holds is no longer good
    assert cloud.ask() is None
    assert len(metadata.tokens) == 3


@pytest.mark.parametrize(
    "text", ["", "terminate", "[]", "null", '{"action": "stop"}', '{"time": 5}', '{"time": "soon"}']
)
def test_aws_notice_that_cannot_be_read_is_a_notice(text):
    notice = preemption.interruption(text)
    assert notice.deadline_s == pytest.approx(time.time() + 120, abs=5)


def test_gcp_waits_for_the_change(metadata, ray):
    cloud = preemption.Gcp(metadata.url, wait_s=5)
    agent = threading.Thread(target=preemption.watch, args=(cloud, drain_with(ray)), daemon=True)
    agent.start()
    deadline = time.monotonic() + 10
    while not any("wait_for_change" in path for _, path in metadata.requests) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert calls(ray) == []
    metadata.preempted = "TRUE"
    began = time.monotonic()
    metadata.changed.set()
    agent.join(10)
    assert not agent.is_alive()
    assert time.monotonic() - began < 4, "the hanging request must end with the change, not with its time-out"
    (words,) = calls(ray)
    assert 25 <= int(value(words, "--deadline-remaining-seconds")) <= 30
    assert len(metadata.requests) == 2


@pytest.mark.parametrize("status", [400, 403, 404, 500, 503])
def test_failing_service_is_asked_again_ever_more_slowly(metadata, ray, caplog, status):
    caplog.set_level("INFO", "preemption")
    metadata.documents["spot/instance-action"] = (status, "")
    metadata.documents["events/recommendations/rebalance"] = (status, "")
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 6:
            metadata.documents = {"spot/instance-action": (200, interruption_in(60))}

    preemption.watch(preemption.Aws(metadata.url, rebalance=True), drain_with(ray), sleep=sleep)
    assert len(calls(ray)) == 1
    if status == 404:  # there is no notice: no failure
        assert pauses == [5.0] * 6
        return
    assert pauses == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]
    assert caplog.text.count("No answer from the metadata service") == 1
    assert caplog.text.count("answers again") == 1


def test_absent_service_is_asked_again():
    class Enough(Exception):  # noqa: N818
        pass

    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise Enough

    for cloud in (preemption.Aws("http://127.0.0.1:9", rebalance=True), preemption.Gcp("http://127.0.0.1:9")):
        pauses.clear()
        with pytest.raises(Enough):
            preemption.watch(cloud, lambda _: True, sleep=sleep)


def test_refused_drain_is_tried_again_until_the_deadline(ray, monkeypatch):
    monkeypatch.setattr(preemption, "DRAIN_PAUSE_S", 0.05)
    (ray.parent / "failures").write_text("2")
    assert drain_with(ray)(preemption.Notice("going", time.time() + 30))
    assert len(calls(ray)) == 3
    (ray.parent / "failures").write_text("1000")
    began = time.monotonic()
    assert not drain_with(ray)(preemption.Notice("going", time.time() + 1.5))
    assert time.monotonic() - began < 10
    assert not drain_with(ray)(preemption.Notice("perhaps", None)), "without a deadline there is one try"


def test_missing_command_is_a_refusal(tmp_path):
    assert not drain_with(tmp_path / "nothing")(preemption.Notice("perhaps", None))


def test_own_node_is_that_of_the_one_raylet(tmp_path):
    def process(number: int, *words: str) -> None:
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "cmdline").write_bytes("\0".join(words).encode() + b"\0")

    process(1, "/usr/bin/python", "agent.py", f"--node-id={'cd' * 28}")
    assert preemption.find_node_id(tmp_path) is None
    process(2, "/venv/ray/core/src/ray/raylet/raylet", "--raylet_socket_name=x", f"--node_id={NODE}")
    assert preemption.find_node_id(tmp_path) == NODE
    process(3, "/venv/ray/core/src/ray/raylet/raylet", f"--node_id={'ef' * 28}")
    assert preemption.find_node_id(tmp_path) is None, "which of two is ours cannot be known"


def test_the_command_as_a_process(metadata, ray):
    """Started as the clusters' files start it; past any proxy, logging to stderr alone."""
    metadata.documents["spot/instance-action"] = (200, interruption_in(90))
    command = [sys.executable, str(AGENT), "--cloud", "aws", "--metadata-url", metadata.url, "--ray", str(ray)]
    environment = {**os.environ, "http_proxy": "http://127.0.0.1:9", "RAY_ADDRESS": "10.0.0.2:6379"}
    done = subprocess.run(
        [*command, "--node-id", NODE], capture_output=True, text=True, timeout=60, check=True, env=environment
    )
    assert done.stdout == ""
    assert "EC2 spot interruption" in done.stderr
    assert value(calls(ray)[0], "--address") == "10.0.0.2:6379"


def test_now_drains_once_and_does_not_wait_for_a_head_that_is_gone(ray):
    command = [sys.executable, str(AGENT), "--now", "--seconds", "60", "--ray", str(ray), "--node-id", NODE]
    (ray.parent / "failures").write_text("1000")
    assert subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 1
    assert len(calls(ray)) == 1


def test_now_waits_until_the_work_has_left():
    nodes = iter([NODE, NODE, None])
    began = time.monotonic()
    preemption.wait_until_left(time.time() + 60, find=lambda: next(nodes))
    assert time.monotonic() - began < 10
    preemption.wait_until_left(time.time() + 1.2, find=lambda: NODE)


@pytest.mark.slow
def test_a_real_node_is_drained(metadata):
    """The running task ends on the node, no new one is placed there, and its raylet then leaves, for this reason."""
    metadata.documents["spot/instance-action"] = (200, interruption_in(300))
    script = Path(__file__).with_name("drained_node.py")
    done = subprocess.run(
        [sys.executable, str(script), metadata.url], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["found"], "the agent reads a node's id off its raylet's command line"
    assert seen["status"] == 0, seen["log"]
    assert 200 < seen["deadline_s"] < 300
    assert seen["finished"] == 10.0
    assert not seen["later_placed"]
    assert not seen["alive"]
    assert seen["message"].startswith("EC2 spot interruption: terminate")
