"""The entry of the command ``wildray``: parse, run one command, print its result or its error.

In: arguments. Out: exit status 0 done, 1 failed, 2 wrong usage or configuration. Results go to stdout (as text, or with
``--json`` as one JSON object on the last line), logs and progress bars to stderr. An error that a user can cause is
printed as its message; only a defect of wildray itself shows a traceback.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from wildray import __version__
from wildray.cli import commands
from wildray.cli.cluster import check_needed_environment, prepare_environment
from wildray.cli.demo import demo
from wildray.cli.examples import EXAMPLES
from wildray.cli.logs import configure_logs, printable
from wildray.cli.options import Parser, add_common, add_output, add_settings, flags_of, parse
from wildray.cli.pipeline import pipeline
from wildray.cli.submission import STAGES, split_words
from wildray.cli.submit import submit
from wildray.errors import WildrayError
from wildray.remote import in_words, is_storage_error

AddCommand = Callable[..., Parser]
"""Adds a command by name, function and words after it; ``build_parser`` has one."""


def build_parser() -> Parser:
    """The parser of all commands."""
    parser = Parser(
        prog="wildray",
        description="Tell individual animals apart from unlabelled camera-trap video.",
        epilog="The flow: detect, mine, pretrain, evaluate, report. 'wildray demo' runs it all on a simulated reserve.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"wildray {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)

    def command(
        name: str,
        run: commands.Command,
        arguments: str = "",
        *,
        sections: Sequence[str] = (),
        store: bool = True,
        settings: bool = True,
    ) -> Parser:
        summary = inspect.getdoc(run) or ""
        sub: Parser = subparsers.add_parser(
            name,
            help=summary.split("\n")[0].rstrip("."),
            usage=f"wildray {name} [OPTIONS] {arguments}".rstrip(),
            description=summary,
            epilog="examples:\n" + "\n".join(f"  {line}" for line in EXAMPLES[name]),
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if settings:
            add_common(sub, store=store)
            add_settings(sub, sections)
        else:
            add_output(sub)
        sub.set_defaults(run=run)
        return sub

    _add_stages(command)
    _add_purity(command)
    _add_whole(command)
    _add_tools(command)
    for sub in subparsers.choices.values():
        sub.set_defaults(flags=flags_of(sub))
    return parser


def _add_stages(command: AddCommand) -> None:
    """The flow, from media to figures."""
    command("demo", demo, sections=("simulate", "detect", "mine", "train"))
    sub = command("simulate", commands.simulate, "OUT", sections=("simulate",), store=False)
    sub.add_argument("out", metavar="OUT", help="folder to make")
    sub = command("detect", commands.detect, "MEDIA...", sections=("detect", "scale"))
    sub.add_argument(
        "media",
        nargs="+",
        metavar="MEDIA",
        help="files, folders, globs, manifests (CSV, Parquet), MegaDetector JSON, MOT ground truth (.txt)",
    )
    sub.add_argument(
        "--time-zone",
        dest="detect.time_zone",
        metavar="ZONE",
        default=argparse.SUPPRESS,
        help="same as --detect.time-zone",
    )
    command("mine", commands.mine, sections=("mine", "scale"))
    sub = command(
        "pretrain", commands.pretrain, sections=("train", "method", "backbone", "augment", "scale", "tracking")
    )
    sub.add_argument(
        "--run",
        dest="run_name",
        required=True,
        metavar="NAME",
        help="name of the model; the same name goes on where it stopped",
    )
    sub.add_argument(
        "--data",
        metavar="METADATA",
        help="labelled images (CSV, or the digest of an import) whose mAP is measured as training goes on; default the "
        "newest import; none measures none",
    )
    for name, run in (("embed", commands.embed), ("evaluate", commands.evaluate)):
        sub = command(name, run, sections=("eval", "backbone", "scale"))
        sub.add_argument(
            "--run", dest="run_name", metavar="NAME", help="model to use; without it, --backbone.* as it comes"
        )
        sub.add_argument(
            "--data",
            metavar="METADATA",
            help="labelled images (CSV of wildlife-datasets columns, an import's digest); default the newest import"
            + ("; detections, or detections/DIGEST, for the crops of detections" if name == "embed" else ""),
        )

    sub = command("sweep", commands.sweep, "FILE", sections=("tracking",))
    sub.add_argument("file", metavar="FILE", help="sweep file (YAML), such as those in tuning/")
    sub.add_argument("--dry-run", action="store_true", help="show the trials, the time and the cost, and run nothing")


def _add_purity(command: AddCommand) -> None:
    """How good the pairs are, where that can be known."""
    sub = command("purity", commands.purity, sections=("scale",))
    sub.add_argument(
        "--truth",
        nargs="+",
        default=[],
        metavar="FILE",
        help="what is known of the media: MOT ground truth (.txt), a reserve's truth/boxes.parquet",
    )
    sub.add_argument("--pairs", metavar="DIGEST", help="pair set to judge; default the newest")
    sub.add_argument("--grid", metavar="FILE", help="grid of mining settings (YAML), such as tuning/pair_quality.yaml")
    sub.add_argument(
        "--detections", metavar="DIGEST", help="with --grid and --truth: detections to mine; default the newest"
    )
    sub.add_argument("--partial", action="store_true", help="leave media without truth out instead of refusing them")
    sub.add_argument(
        "--match-iou",
        type=float,
        default=0.3,
        metavar="IOU",
        help="least overlap of a detection with the animal that it shows [%(default)s]",
    )


def _add_whole(command: AddCommand) -> None:
    """The whole flow in one command, and any stage on a cluster."""
    sub = command(
        "pipeline",
        pipeline,
        "MEDIA...",
        sections=("detect", "mine", "train", "method", "backbone", "augment", "eval", "scale", "tracking"),
    )
    sub.add_argument("media", nargs="+", metavar="MEDIA", help="as detect takes them")
    sub.add_argument(
        "--run", dest="run_name", required=True, metavar="NAME", help="name of the model; the same name goes on"
    )
    sub.add_argument(
        "--data",
        metavar="METADATA",
        help="labelled images (CSV, or an import's digest) to evaluate on",
    )
    sub = command("submit", submit, "STAGE ARGUMENTS...", settings=False)
    sub.description = (
        f"{sub.description}\n\nSTAGE is one of {', '.join(STAGES)}; 'wildray submit STAGE --help' shows its arguments."
    )
    sub.add_argument(
        "--address", metavar="URL", help="dashboard of the cluster (or RAY_API_SERVER_ADDRESS), http://127.0.0.1:8265"
    )
    sub.add_argument("--follow", action="store_true", help="show the job's log, and end with its exit status")
    sub.add_argument("--again", action="store_true", help="also when the same job has succeeded: new media, say")
    sub.add_argument(
        "--code",
        default="sent",
        metavar="CODE",
        help="sent: this wildray's code; installed: the nodes have it; or a wheel's file [%(default)s]",
    )
    sub.add_argument(
        "--pass-env",
        action="append",
        default=[],
        metavar="NAME",
        help="variable that the job must find in its node's environment, such as MLFLOW_TRACKING_URI; only its name is "
        "sent, since all who reach the dashboard can read it",
    )
    sub.add_argument("--status", metavar="ID", help="show a job that was submitted")
    sub.add_argument("--stop", metavar="ID", help="stop a job; what was finished is kept")


def _add_tools(command: AddCommand) -> None:
    """What shows, takes out, hands on and serves what the flow made."""
    sub = command("report", commands.report)
    sub.add_argument("--run", dest="run_name", metavar="NAME", help="model to show; default the newest")
    sub.add_argument("--sweep", metavar="NAME", help="sweep to show instead of a model")
    sub = command("audit", commands.audit, sections=("audit",))
    sub.add_argument("--pairs", metavar="DIGEST", help="pair set to draw from; default the newest")
    sub.add_argument("--out", metavar="FILE", help="HTML file to write; default reports/audit-SHEET.html in the store")
    sub.add_argument(
        "--verdicts", nargs="+", metavar="FILE", help="verdicts saved from a sheet, a file of each reviewer"
    )
    sub = command("purge", commands.purge, "MEDIUM...")
    sub.add_argument("what", nargs="+", metavar="MEDIUM", help="media files, media ids, or detection ids (numbers)")
    sub = command("export", commands.export, "FILE")
    sub.add_argument("file", metavar="FILE", help="JSON file to write")
    sub.add_argument("--detections", metavar="DIGEST", help="collection to export; default the newest")
    sub.add_argument("--root", metavar="FOLDER", help="folder that file names are relative to; default what they share")
    sub = command("mlflow", commands.mlflow)
    sub.add_argument("--host", default="127.0.0.1", help="address to listen on [%(default)s]")
    sub.add_argument(
        "--port",
        type=int,
        choices=range(1, 65536),
        metavar="PORT",
        default=5000,
        help="port to listen on [%(default)s]",
    )
    command("doctor", commands.doctor)


def parse_words(words: Sequence[str]) -> argparse.Namespace:
    """The arguments of a command; ``submit`` has those of the stage, unparsed, as ``stage_words``."""
    if list(words[:1]) != ["submit"]:
        return parse(build_parser(), words)
    own, stage = split_words(words[1:])
    # how much is printed is said once for both
    output = [word for word in stage if word in ("--json", "-v", "--verbose", "-q", "--quiet")]
    arguments = parse(build_parser(), ["submit", *own, *output])
    arguments.stage_words = stage if arguments.status is None and arguments.stop is None else _bare(stage)
    return arguments


def _bare(words: Sequence[str]) -> list[str]:
    return [word for word in words if not word.startswith("-")]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    words = sys.argv[1:] if argv is None else list(argv)
    as_json = "--json" in words
    try:
        arguments = parse_words(words)
        prepare_environment(arguments.address)
        configure_logs(verbose=arguments.verbose, quiet=arguments.quiet)
        check_needed_environment()
        result = arguments.run(arguments)
        if as_json:
            print(json.dumps(result, default=str))
        sys.stdout.flush()
        if isinstance(result, dict) and "exit_status" in result:  # of what the command ran: a job, a server
            return int(result["exit_status"])
    except WildrayError as error:
        print(printable(f"wildray: {error}"), file=sys.stderr)
        return _ended(error.exit_status, str(error), type(error).__name__, as_json=as_json)
    except KeyboardInterrupt:
        text = "Interrupted. What was finished is kept: the same command goes on from there."
        print(text, file=sys.stderr)
        return _ended(130, text, "Interrupted", as_json=as_json)
    except BrokenPipeError:  # whoever read stdout has gone; Python would complain again as it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if is_storage_error(error):
            text = f"Object storage failed ({in_words(error)}). What was finished is kept: the same command goes on."
            print(f"wildray: {text}", file=sys.stderr)
            return _ended(1, text, "StorageError", as_json=as_json)
        # not foreseen, so the traceback is what a report of the defect needs; the result of earlier stages is kept
        print(printable(traceback.format_exc()), file=sys.stderr)
        text = f"{type(error).__name__}: {error}"
        said = f"wildray: this is a defect of wildray, please report it with the lines above: {text}"
        print(printable(said), file=sys.stderr)
        return _ended(1, text, "Defect", as_json=as_json)
    return 0


def _ended(status: int, message: str, kind: str, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"error": message, "kind": kind}))
    return status
