"""Signals that ask a process to end: what they raise, when, and what is removed before."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmfree_compiler import interrupts
from mmfree_compiler.interrupts import Interrupted, uninterrupted
from mmfree_compiler.temporary import temporary_folder


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Those of the command line, for one test."""
    before = {number: signal.getsignal(number) for number in interrupts.ENDING}
    interrupts.raise_interrupted()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


ending = pytest.mark.parametrize("number", interrupts.ENDING)


@ending
def test_a_signal_is_an_interrupt(number: int) -> None:
    with pytest.raises(KeyboardInterrupt) as raised:
        signal.raise_signal(number)
    assert interrupts.exit_code(raised.value) == 128 + number


def test_ctrl_c_of_python_itself_has_the_same_exit_code() -> None:
    assert interrupts.exit_code(KeyboardInterrupt()) == 130


@ending
def test_a_signal_waits_for_the_end_of_a_block(number: int) -> None:
    ended = []

    @uninterrupted()
    def block() -> None:
        with uninterrupted():
            signal.raise_signal(number)
        ended.append(True)

    with pytest.raises(Interrupted):
        block()
    assert ended


def test_an_error_of_the_block_does_not_lose_the_signal() -> None:
    @uninterrupted()
    def block() -> None:
        signal.raise_signal(signal.SIGTERM)
        raise ValueError

    with pytest.raises(Interrupted):
        block()


def test_a_signal_without_a_handler_is_left_alone() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with uninterrupted():
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_what_is_ignored_stays_ignored() -> None:
    """As under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interrupts.raise_interrupted()
    signal.raise_signal(signal.SIGHUP)
    interrupts.end_at_once()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_a_second_signal_does_not_stop_cleaning_up() -> None:
    cleaned = []

    def work() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            try:
                raise OSError
            except OSError:
                signal.raise_signal(signal.SIGTERM)
            cleaned.append(True)

    with pytest.raises(Interrupted, match="SIGINT"):
        work()
    assert cleaned
    with pytest.raises(Interrupted):  # the next one after that counts again
        signal.raise_signal(signal.SIGTERM)


def test_a_temporary_folder_is_removed_although_a_signal_arrives_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tempfile.mkdtemp

    def interrupted(**options: Path) -> str:
        name = plain(**options)  # type: ignore[call-overload]
        signal.raise_signal(signal.SIGTERM)
        return str(name)

    monkeypatch.setattr(tempfile, "mkdtemp", interrupted)
    with pytest.raises(Interrupted), temporary_folder(tmp_path):
        pytest.fail("the signal was lost")
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_folder(tmp_path: Path) -> None:
    with temporary_folder(tmp_path) as folder:
        (folder / "file").write_text("x")
        assert list(tmp_path.iterdir()) == [folder]
    assert list(tmp_path.iterdir()) == []


# In its own process: what follows an import, and then a signal instead of a command.
COMMAND = """
import os, sys
from mmfree_compiler import cli
print(len(sys.modules))
cli._main = lambda: os.kill(os.getpid(), 15)
cli.main()
"""


def test_the_command_line_can_be_interrupted_from_its_start() -> None:
    """Little is imported before its handlers are there."""
    done = subprocess.run(
        [sys.executable, "-c", COMMAND], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (143, "")
    assert int(done.stdout) < 100  # Python's own are about 60
