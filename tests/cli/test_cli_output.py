"""Text of a model on stdout: as it is in a pipe, harmless on a terminal."""

from __future__ import annotations

import sys

import pytest

from mmfree_compiler.cli.output import show


@pytest.mark.parametrize(
    ("terminal", "shown"), [(False, "a\x1b[2J\nb"), (True, "a\\x1b[2J\nb")], ids=["pipe", "tty"]
)
def test_generated_controls_do_not_reach_a_terminal(
    terminal: bool,
    shown: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    show("a\x1b[2J\nb")
    assert capsys.readouterr().out == shown
