"""Drain this Ray node when the cloud is about to take its machine away.

In: the cloud's metadata service (polled, plain HTTP) or, with ``--now``, the fact of being called, which is how
Kubernetes' preStop hook uses it. Out: one ``ray drain-node`` with the seconds that are left, after which Ray places no
new work here and lets the training know that this node goes. Log lines go to stderr.

    python preemption.py --cloud aws --address HEAD:6379     # beside every worker on a virtual machine
    python preemption.py --now --seconds 90                  # as a pod's preStop hook

Standard library alone, and no ``import ray``: it must outlive a broken environment, and a driver that waits for days
would be a job of its own in the dashboard. Nothing in Ray polls the notice on plain virtual machines (2.60).
"""

from __future__ import annotations

import argparse
import datetime
import http.client
import json
import logging
import os
import subprocess  # nosec B404 # lists of arguments, never a shell
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

logger = logging.getLogger("preemption")

METADATA = "http://169.254.169.254"  # both clouds' link-local address
AWS_POLL_S = 5.0  # EC2 user guide, "Spot Instance interruption notices": check every 5 seconds
AWS_NOTICE_S = 120  # the same page: two minutes
AWS_TOKEN_TTL_S = 21600  # the longest that IMDSv2 grants
GCP_WAIT_S = 60
GCP_NOTICE_S = 30  # Compute Engine, "Preemption process": 30 seconds until the machine is stopped
MAX_PAUSE_S = 60.0
DRAIN_TIMEOUT_S = 30
DRAIN_PAUSE_S = 2.0
ANSWERS = (OSError, http.client.HTTPException)  # all that a metadata service can do wrong; URLError is an OSError


class Notice(NamedTuple):
    """What the cloud has announced."""

    message: str
    """For Ray's events and the dashboard."""
    deadline_s: float | None
    """Unix time at which the machine is gone; None where it may yet stay."""


class Answer(NamedTuple):
    """What the metadata service said."""

    status: int
    body: str
    etag: str


class Cloud(Protocol):
    """A metadata service."""

    pause_s: float
    """Seconds between two questions."""

    def ask(self) -> Notice | None:
        """The notice that stands now, or None; raises one of ANSWERS where the service is not to be reached."""


def fetch(url: str, headers: Mapping[str, str], *, method: str = "GET", timeout_s: float = 5.0) -> Answer:
    """One request to the metadata service, past any proxy; statuses above 400 are answers, not errors."""
    request = urllib.request.Request(url, headers=dict(headers), method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout_s) as reply:
            return Answer(reply.status, reply.read(65536).decode("utf-8", "replace"), reply.headers.get("ETag") or "")
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, "", "")


class Aws:
    """EC2's instance metadata, version 2: a token first, then spot interruption and rebalance recommendation.

    A rebalance recommendation comes earlier, with no time and no certainty, so it drains without a deadline: running
    work may finish, new work goes elsewhere. The interruption that may follow sets the deadline.
    """

    pause_s = AWS_POLL_S

    def __init__(self, base_url: str, *, rebalance: bool) -> None:
        self._base_url = base_url
        self._rebalance = rebalance
        self._token = ""  # nosec B105 # none yet

    def ask(self) -> Notice | None:
        """The interruption, else the recommendation, else None."""
        action = self._get("spot/instance-action")
        if action is not None:
            return interruption(action)
        if self._rebalance and self._get("events/recommendations/rebalance") is not None:
            return Notice("EC2 recommends to rebalance: this spot instance is likely to be interrupted", None)
        return None

    def _get(self, path: str) -> str | None:
        """A document's text; None where there is none (404). A refused token is renewed once."""
        for _ in range(2):
            if not self._token:
                ttl = {"X-aws-ec2-metadata-token-ttl-seconds": str(AWS_TOKEN_TTL_S)}
                self._token = _expect(fetch(f"{self._base_url}/latest/api/token", ttl, method="PUT")).body
            answer = fetch(f"{self._base_url}/latest/meta-data/{path}", {"X-aws-ec2-metadata-token": self._token})
            if answer.status == 404:
                return None
            if answer.status != 401:
                return _expect(answer).body
            self._token = ""  # nosec B105 # to be asked for anew
        raise OSError("the metadata service refuses its own token")


def interruption(text: str) -> Notice:
    """The notice in EC2's ``spot/instance-action``; what cannot be read counts as the usual two minutes."""
    try:
        document = json.loads(text)
        at = datetime.datetime.fromisoformat(document["time"])
        at = at if at.tzinfo else at.replace(tzinfo=datetime.UTC)
        return Notice(
            f"EC2 spot interruption: {document.get('action', 'unknown')} at {document['time']}", at.timestamp()
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return Notice(f"EC2 spot interruption: {text[:100]!r}", time.time() + AWS_NOTICE_S)


class Gcp:
    """Compute Engine's metadata: ``instance/preempted`` turns TRUE; the request hangs until it changes."""

    pause_s = 0.0

    def __init__(self, base_url: str, *, wait_s: int = GCP_WAIT_S) -> None:
        self._base_url = base_url
        self._wait_s = wait_s
        self._etag = ""

    def ask(self) -> Notice | None:
        """The notice, or None: at once at first, then when something changed or after ``wait_s`` seconds."""
        url = f"{self._base_url}/computeMetadata/v1/instance/preempted"
        if self._etag:
            url += f"?wait_for_change=true&timeout_sec={self._wait_s}&last_etag={self._etag}"
        began = time.monotonic()
        answer = _expect(fetch(url, {"Metadata-Flavor": "Google"}, timeout_s=self._wait_s + 10))
        if answer.body.strip().upper() == "TRUE":
            return Notice("Compute Engine preempts this instance", time.time() + GCP_NOTICE_S)
        if not answer.etag or time.monotonic() - began < 0.1:
            time.sleep(min(1.0, self._wait_s))  # a service that does not wait must not be asked in a tight loop
        self._etag = answer.etag
        return None


def _expect(answer: Answer) -> Answer:
    if answer.status != 200:
        raise OSError(f"the metadata service answered {answer.status}")
    return answer


def watch(cloud: Cloud, drain: Callable[[Notice], bool], *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Ask until the machine is to go, and drain; returns once a drain with a deadline was accepted or ran out of time.

    A service that fails is asked again, less and less often; it is logged when that begins and when it ends.
    """
    failures = 0
    warned = False
    while True:
        try:
            notice = cloud.ask()
        except ANSWERS as error:
            if failures == 0:
                logger.warning("No answer from the metadata service (%s); asking again", error)
            failures += 1
            sleep(min(MAX_PAUSE_S, max(cloud.pause_s, 1.0) * 2 ** min(failures - 1, 10)))
            continue
        if failures:
            logger.info("The metadata service answers again")
            failures = 0
        if notice is not None and notice.deadline_s is not None:
            logger.warning("%s", notice.message)
            drain(notice)
            return
        if notice is not None and not warned:
            logger.warning("%s", notice.message)
            warned = drain(notice)  # one that was not accepted is tried again after the pause
        sleep(cloud.pause_s)


def node_ids(proc: Path = Path("/proc")) -> set[str]:
    """Hex ids of the Ray nodes that run here: what their raylets were started with."""
    found = set()
    for file in proc.glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:  # ended meanwhile, or another user's
            continue
        if Path(words[0]).name == "raylet":
            found |= {word.partition("=")[2] for word in words if word.startswith(("--node_id=", "--node-id="))}
    return found


def find_node_id(proc: Path = Path("/proc")) -> str | None:
    """Hex id of the one Ray node that runs here; None where there is none or several."""
    found = node_ids(proc)
    return found.pop() if len(found) == 1 else None


def drain_node(notice: Notice, *, ray: str, address: str | None, node_id: str | None, once: bool = False) -> bool:
    """Have Ray drain this node; what fails is tried again until it is accepted or the deadline has passed.

    ``once``, or without a deadline, there is one try. Returns whether Ray accepted.
    """
    while True:
        remaining_s = None if notice.deadline_s is None else max(0, int(notice.deadline_s - time.time()))
        node = node_id or find_node_id()
        if node is None:
            logger.error("There is not exactly one raylet on this machine: name the node with --node-id")
        elif _drained(drain_command(notice, ray=ray, address=address, node_id=node, remaining_s=remaining_s)):
            logger.warning("Ray drains node %s, %s", node, "no deadline" if remaining_s is None else f"{remaining_s} s")
            return True
        if once or not remaining_s:
            return False
        time.sleep(min(DRAIN_PAUSE_S, remaining_s))


def drain_command(notice: Notice, *, ray: str, address: str | None, node_id: str, remaining_s: int | None) -> list[str]:
    """The command that asks Ray's head for the drain."""
    command = [ray, "drain-node", "--node-id", node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    command += ["--reason-message", notice.message, *(["--address", address] if address else [])]
    if remaining_s is not None:
        command += ["--deadline-remaining-seconds", str(remaining_s)]
    return command


def _drained(command: list[str]) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DRAIN_TIMEOUT_S)  # nosec B603 # our ray
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.error("The drain command did not run: %s", error)
        return False
    if done.returncode != 0:
        logger.error("Ray did not accept the drain: %s", (done.stderr or done.stdout).strip()[-500:])
    return done.returncode == 0


def wait_until_left(deadline_s: float, *, find: Callable[[], str | None] = find_node_id) -> None:
    """Return once the raylet has ended, as a drained one does when its work has left it, or at the deadline."""
    while time.time() < deadline_s and find() is not None:
        time.sleep(1.0)


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    beside = Path(sys.executable).with_name("ray")
    parser = argparse.ArgumentParser(description="Drain this Ray node when its machine is about to be taken away.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--cloud", choices=("aws", "gcp"), help="whose metadata service is polled")
    what.add_argument("--now", action="store_true", help="drain at once, and wait until the work has left")
    parser.add_argument("--seconds", type=int, default=AWS_NOTICE_S, help="with --now: until the machine is gone")
    parser.add_argument("--address", help="HOST:PORT of the head; default RAY_ADDRESS or the cluster of this machine")
    parser.add_argument("--node-id", help="hex id of this Ray node; default that of the one raylet here")
    parser.add_argument("--metadata-url", default=METADATA, help="base URL of the metadata service")
    parser.add_argument("--no-rebalance", action="store_true", help="ignore EC2's rebalance recommendations")
    parser.add_argument("--ray", default=str(beside) if beside.exists() else "ray", help="the ray command")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """Run the agent; 1 where ``--now`` could not drain."""
    arguments = parse(words)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr)
    address = arguments.address or os.environ.get("RAY_ADDRESS")

    def drain(
        notice: Notice,
    ) -> bool:  # a pod that stops with its whole cluster finds no head: it must not wait for one
        return drain_node(notice, ray=arguments.ray, address=address, node_id=arguments.node_id, once=arguments.now)

    if arguments.now:
        deadline_s = time.time() + arguments.seconds
        if not drain(Notice("This pod is being stopped", deadline_s)):
            return 1
        wait_until_left(deadline_s)
        return 0
    base_url = arguments.metadata_url.rstrip("/")
    cloud: Cloud = Gcp(base_url) if arguments.cloud == "gcp" else Aws(base_url, rebalance=not arguments.no_rebalance)
    logger.info("Watching %s for preemption", base_url)
    watch(cloud, drain)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
