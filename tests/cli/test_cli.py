import json
import subprocess
import sys

import pytest

from wildray.cli.main import build_parser, main
from wildray.cli.options import config_of, parse
from wildray.config import field_names


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (["detcet"], 2, "detect"),
        (["mine", "--mine.min-iuo", "0.3"], 2, "--mine.min-iou"),
        (["mine", "--mine.min_iou", "7", "--store", "{store}"], 2, "less than or equal to 1"),
        (["mine", "--config", "/missing.yaml", "--store", "{store}"], 2, "/missing.yaml"),
        (["mine", "--preset", "papre", "--store", "{store}"], 2, "paper"),
        (["mine", "--store", "/no/such/store"], 1, "no store at"),
        (["detect"], 2, "MEDIA"),
        (["detect", "x.mp4", "--store", "/proc/nowhere"], 1, "/proc/nowhere"),
        (["evaluate", "surplus", "--store", "{store}"], 2, "surplus"),
    ],
)
def test_what_is_wrong_is_said_in_words(argv, status, words, tmp_path, capsys):
    argv = [word.format(store=tmp_path) for word in argv]
    assert main(argv) == status
    printed = capsys.readouterr()
    assert words in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""


def test_an_error_is_json_too_where_json_was_asked_for(capsys):
    assert main(["mine", "--store", "/no/such/store", "--json"]) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["kind"] == "StoreError"


def test_every_setting_is_an_option_in_both_spellings(tmp_path):
    parser = build_parser()
    arguments = parse(parser, ["mine", "--mine.min_iou", "0.3", "--train.batch-size", "8", "--eval.exclude", "a, b"])
    config = config_of(arguments)
    assert (config.mine.min_iou, config.train.batch_size, config.eval.exclude) == (0.3, 8, ("a", "b"))
    flags = set(arguments.flags)
    for name, _, _ in field_names():
        assert {f"--{name}", f"--{name.replace('_', '-')}"} <= flags


def test_options_win_over_the_file(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("mine: {min_iou: 0.4, interval: 1min}\n")
    arguments = parse(build_parser(), ["mine", "--config", str(path), "--mine.min-iou", "0.3"])
    config = config_of(arguments)
    assert (config.mine.min_iou, config.mine.interval) == (0.3, "60s")
    unset = config_of(parse(build_parser(), ["mine", "--mine.sequence-gap", "null"]))
    assert unset.mine.sequence_gap is None


@pytest.mark.parametrize("command", [[], *([name] for name in build_parser()._subparsers._group_actions[0].choices)])
def test_help_teaches(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "usage: wildray" in text
    if command:
        assert f"wildray {command[0]} " in text.partition("examples:")[2]


def test_help_comes_fast_and_without_heavy_libraries():
    code = (
        "import sys\nfrom wildray.cli.main import main\n"
        "try: main(['detect', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'mlflow', 'faiss', 'matplotlib'} & set(sys.modules)\nassert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
