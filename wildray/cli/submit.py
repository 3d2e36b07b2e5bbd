"""``wildray submit``: a stage as a Ray job, followed to its end.

In: a checked ``Submission``. Out: a job on the cluster, and its exit status. A job is named by its command and
settings: submitted again it is the same job, so that a queue that repeats itself, or a lost connection, runs nothing
twice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wildray import __version__
from wildray.cli.cluster import check_token
from wildray.cli.submission import Submission, environment_variables, package, prepare
from wildray.errors import ConfigError, StageError

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

logger = logging.getLogger(__name__)

POLL_S = 1.0
FAILED = ("FAILED", "STOPPED")
INTERRUPTED = 130


def submit(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run a stage on a cluster, as a Ray job.

    The stage's arguments are checked here before anything is sent. The same command with the same settings is the same
    job: while it runs, submitting it again follows it; when it has succeeded, nothing is submitted (unless --again);
    when it failed, it is submitted anew and goes on where it stopped. Code and settings files travel; footage, store
    and labelled images must lie in folders that every node sees. The token is taken from RAY_AUTH_TOKEN or a file.
    """
    for name in (arguments.status, arguments.stop):
        if name is not None and arguments.stage_words:
            raise ConfigError(
                f"--status and --stop take the id of a job, and no stage: got {arguments.stage_words[0]}."
            )
    if arguments.status is not None or arguments.stop is not None:
        client = _client(arguments.address)
        return _look_after(arguments, client)
    from wildray.cli.main import parse_words

    submission = prepare(arguments.stage_words, parse_words)
    variables = environment_variables(arguments.pass_env)
    with tempfile.TemporaryDirectory(prefix="wildray-") as folder:
        environment = {**package(submission, arguments.code, Path(folder)), "env_vars": variables}
        client = _client(arguments.address)
        name, state = _submitted(client, submission, environment, again=arguments.again)
    result: dict[str, Any] = {"submission_id": name, "state": state, "address": arguments.address}
    if not arguments.follow or state == "finished before":
        if not arguments.json:
            print(f"{name}: {state}")
        if state != "finished before":
            logger.info("'wildray submit --status %s --address %s' shows it", name, arguments.address)
        return result
    return result | _follow(client, name, arguments)


def next_name(states: dict[str, str], base: str, *, again: bool = False) -> tuple[str, str]:
    """Which job a command is, given the earlier jobs of that name.

    Args:
        states: Ray's status of each known job.
        base: Name of the first.
        again: Whether one that succeeded is run once more.

    Returns:
        The name, and ``submitted``, ``running`` (it is under way) or ``finished before``.
    """
    number, name = 1, base
    while name in states:
        if states[name] == "SUCCEEDED" and not again:
            return name, "finished before"
        if states[name] not in ("SUCCEEDED", *FAILED):
            return name, "running"
        number += 1
        name = f"{base}-{number}"
    return name, "submitted"


def _submitted(
    client: JobSubmissionClient, submission: Submission, environment: dict[str, Any], *, again: bool
) -> tuple[str, str]:
    states = {job.submission_id: str(job.status.value) for job in client.list_jobs() if job.submission_id}
    name, state = next_name(states, submission.name, again=again)
    if state != "submitted":
        logger.info("submit: %s: %s, nothing is submitted", name, state)
        return name, state
    with _explained():
        client.submit_job(
            entrypoint=submission.entrypoint,
            submission_id=name,
            runtime_env=environment,
            metadata={"stage": submission.stage, "wildray": __version__},
        )
    logger.info("submit: %s: %s", name, submission.entrypoint)
    return name, state


def _follow(client: JobSubmissionClient, name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Show a job's log until it ends; its status, exit status and, with --json, result."""
    stream = sys.stderr if arguments.json else sys.stdout
    try:
        job = asyncio.run(_tailed(client, name, stream))
    except KeyboardInterrupt:
        _interrupted(client, name, arguments.address)
        return {"status": str(client.get_job_status(name).value), "exit_status": INTERRUPTED}
    status = str(job.status.value)
    exit_status = 0 if status == "SUCCEEDED" else job.driver_exit_code or 1
    logger.info("submit: %s: %s", name, status)
    if status != "SUCCEEDED" and job.driver_exit_code is None:
        logger.warning("submit: %s", job.message)
    found = {"status": status, "exit_status": exit_status}
    return found | {"result": last_object(client.get_job_logs(name))} if arguments.json else found


async def _tailed(client: JobSubmissionClient, name: str, stream: Any) -> JobDetails:
    """Print the log as it comes; a connection that is lost is taken up again, without lines twice."""
    num_shown = 0
    while True:
        job = client.get_job_info(name)
        begun = num_seen = 0
        try:
            async for text in client.tail_job_logs(name):
                begun = num_seen
                num_seen += len(text)
                if num_seen > num_shown:
                    print(text[max(0, num_shown - begun) :], end="", file=stream, flush=True)
                    num_shown = num_seen
        except (OSError, RuntimeError) as error:
            logger.debug("the log of %s broke off: %s", name, error)
        job = client.get_job_info(name)
        if job.status.is_terminal():
            rest = client.get_job_logs(name)[num_shown:]
            print(rest, end="", file=stream, flush=True)
            return job
        await asyncio.sleep(POLL_S)


def _interrupted(client: JobSubmissionClient, name: str, address: str) -> None:
    """Ask whether the job is to be stopped; without a terminal it goes on."""
    stop = f"wildray submit --stop {name} --address {address}"
    if sys.stdin.isatty() and sys.stderr.isatty():
        print(f"\nStop the job {name} too? [y/N] ", end="", file=sys.stderr, flush=True)
        try:
            answer = sys.stdin.readline()
        except KeyboardInterrupt:
            answer = ""
        if answer.strip().lower() in ("y", "yes"):
            client.stop_job(name)
            print("It is stopped. What was finished is kept: the same command goes on from there.", file=sys.stderr)
            return
    print(f"The job goes on. To stop it: {stop}", file=sys.stderr)


def _look_after(arguments: argparse.Namespace, client: JobSubmissionClient) -> dict[str, Any]:
    """Show a job, or stop it."""
    name = arguments.stop or arguments.status
    known = {job.submission_id: job for job in client.list_jobs() if job.submission_id}
    if name not in known:
        raise ConfigError(
            f"The cluster knows no job {name!r}. Known: {', '.join(sorted(known)[-12:]) or 'none at all'}."
        )
    if arguments.stop and not known[name].status.is_terminal():
        client.stop_job(name)
        end_s = time.monotonic() + 30
        while not client.get_job_status(name).is_terminal() and time.monotonic() < end_s:
            time.sleep(POLL_S)
    job = client.get_job_info(name)
    found: dict[str, Any] = {
        "submission_id": name,
        "status": str(job.status.value),
        "begun": _time(job.start_time),
        "ended": _time(job.end_time),
        "entrypoint": job.entrypoint,
    }
    if arguments.follow:
        return found | _follow(client, name, arguments)
    if not arguments.json:
        for key, value in found.items():
            print(f"{key:14}{value}")
    return found


def last_object(log: str) -> Any:
    """The JSON object that a stage printed last, or None."""
    for line in reversed(log.splitlines()):
        if line.startswith(("{", "[")):
            try:
                return json.loads(line)
            except ValueError:
                continue
    return None


def _time(milliseconds: int | None) -> str | None:
    return None if not milliseconds else datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


def _client(address: str | None) -> JobSubmissionClient:
    """A client of the cluster's Jobs API.

    Raises:
        ConfigError: No address, no cluster there, or another token than the cluster's.
    """
    address = address or os.environ.get("RAY_API_SERVER_ADDRESS")
    if not address:
        raise ConfigError(
            "wildray submit needs --address, the URL of the cluster's dashboard, such as http://127.0.0.1:8265 "
            "(through an SSH tunnel or 'kubectl port-forward': the port is never public)."
        )
    if address.startswith("ray://"):
        raise ConfigError(f"--address: got {address}, expected the URL of the dashboard, such as http://HOST:8265.")
    check_token()
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        os.environ.pop(name, None)  # Ray would take these in place of the address that it is given
    with _explained(address):
        from ray.job_submission import JobSubmissionClient

        logging.getLogger("ray").setLevel(logging.WARNING)
        return JobSubmissionClient(address if "://" in address else f"http://{address}")


@contextmanager
def _explained(address: str = "the cluster") -> Iterator[None]:
    """Turn what Ray's client raises into what the user can do about it."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError:
        raise ConfigError(
            f"{address} refuses the token. Give the cluster's own: in RAY_AUTH_TOKEN, or in a file for you alone that "
            f"RAY_AUTH_TOKEN_PATH names (default ~/.ray/auth_token), with RAY_AUTH_MODE=token."
        ) from None
    except ConnectionError as error:
        raise ConfigError(
            f"No Ray dashboard answers at {address} ({error}). Expected the URL of the head's port 8265, which is "
            f"reached through a tunnel: ssh -L 8265:127.0.0.1:8265 HEAD."
        ) from None
    except (RuntimeError, ValueError) as error:
        text = str(error).strip().splitlines() or [type(error).__name__]
        raise StageError(f"{address} did not take the job: {text[0]}") from error
