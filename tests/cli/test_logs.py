"""Names of files reach the terminal as text, never as commands to it."""

import io
import logging

from wildray.cli.logs import Lines, printable
from wildray.cli.main import main


def test_control_characters_are_shown_and_not_obeyed():
    shown = printable("a\x1b[2J\x07\x9b31m\r\u202eb\udcff\u0000.mp4")
    assert shown == r"a\x1b[2J\x07\x9b31m\r\u202eb\udcff\x00.mp4"
    assert printable("Taï Ω 雪豹 \t tab") == "Taï Ω 雪豹 \t tab"


def test_a_line_of_a_message_looks_like_no_other_record():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Lines())
    logger = logging.getLogger("wildray.tests.lines")
    logger.propagate = False
    logger.addHandler(handler)
    logger.warning("%s: not readable", "IMG\n12:00:00 I all is well\n  as ever")
    first, *others = stream.getvalue().splitlines()
    assert first.endswith("W IMG")
    assert others == ["  12:00:00 I all is well", "  as ever: not readable"]


def test_errors_are_printable_too(tmp_path, capsys):
    assert main(["mine", "--config", str(tmp_path / "\x1b]0;title\x07\n.yaml"), "--store", str(tmp_path / "s")]) == 2
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert r"\x1b]0;title\x07" in said
