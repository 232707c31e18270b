"""Attacks on the command line: every command and option, with hostile values."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Sequence
from contextlib import chdir
from functools import cache, partial
from pathlib import Path
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner

from fuzz.attempt import Attack, Attempt
from fuzz.samples import PROMPT, samples
from mmfree_compiler.cli.app import app

CODES = (0, 1, 2, 130)  # success, an error, wrong usage, Ctrl-C
TEXTS = (
    *("", " ", "-", "--", "-x", "--nope", "=", "x", "nan", "inf", "-inf", "1e999", "true", "None"),
    *("0", "-1", "1.5", "0x10", "1_000", "\N{ARABIC-INDIC DIGIT ONE}", "1,2", ",", "2:", "cpu"),
    *("cpu:", "cpu:density=2", "cpu:density=", "cpu:,", "cpu:nope", "reference", ":", "cpu:a=b=c"),
    *("\x1b[31mred", "\r\nx", "\udcff", "é" * 50, "x" * 5000, "%s%n", "{}", "$HOME", "~", "*"),
    *("module", "passes", "none", "python", "0.0", "1e-300"),
)
PATHS = (
    *("nowhere", "nowhere/deep/x", ".", "..", "/", "/dev/null", "/dev/full", "/proc/self/mem"),
    *("empty", "folder", "x" * 300, "\udcff", "-", "\x1b[31m", "lm.mmfree", "checkpoint", "text"),
)
LARGE = ("9" * 30, "2147483648", "9223372036854775808", "1000000")
# Of these, a large number is a long run, not a fault.
LONG = {"steps", "batch", "length", "max_new_tokens", "new_tokens", "repeat", "tokens"}
LONG |= {"prompt_tokens"}
SLOW = {"deep"}  # flags that take minutes on a busy machine
# Arguments of a short run of each command, in a folder with the samples.
QUICK: dict[str, list[str]] = {
    "compile": ["checkpoint", "-o", "out.mmfree", "--target", "cpu:portable", "--check", "none"],
    "run": ["lm.mmfree", "--prompt", PROMPT, "--max-new-tokens", "3"],
    "inspect": ["lm.mmfree"],
    "explain": ["lm.mmfree", "--no-measure"],
    "verify": ["lm.mmfree", "--against", "checkpoint", "--text", "text", "--tokens", "9"],
    "train": [
        "text",
        "-o",
        "trained",
        "--hidden-size",
        "16",
        "--layers",
        "1",
        "--steps",
        "1",
        "--batch",
        "1",
        "--length",
        "8",
    ],
    "bench": ["lm.mmfree", "--prompt-tokens", "2", "--new-tokens", "2", "--repeat", "5"],
    "doctor": [],
    "tune": ["nowhere"],  # a whole run takes minutes
}


@cache
def _options(command: str) -> tuple[Any, ...]:
    group: Any = get_command(app)
    return tuple(
        option
        for option in group.commands[command].params
        if option.opts[0][0] == "-" and option.name not in SLOW
    )


def _arguments(rng: random.Random) -> list[str]:
    """A command with some values that are not what it expects."""
    command = rng.choice(list(QUICK))
    arguments = list(QUICK[command])
    for _ in range(rng.choice((1, 1, 2, 3))):
        change = rng.random()
        if change < 0.75 and command != "tune":
            arguments += _option(rng, rng.choice(_options(command)))
        elif change < 0.9 and arguments and command != "tune":
            arguments[rng.randrange(len(arguments))] = rng.choice(TEXTS + PATHS)
        elif change < 0.97 and arguments and command != "tune":
            del arguments[rng.randrange(len(arguments))]
        else:
            arguments.append(rng.choice(TEXTS))
    return [*rng.choices(([], ["--version"], ["--nope"]), (30, 1, 1))[0], command, *arguments]


def _option(rng: random.Random, option: Any) -> list[str]:
    """An option with a value, written in one word or two; flags have none."""
    name = rng.choice(option.opts)
    if option.is_flag:
        return [name]
    values: tuple[str, ...] = PATHS if option.name in ("output", "against", "text") else TEXTS
    values += () if option.name in LONG else LARGE
    value = rng.choice(values)
    return [f"{name}={value}"] if rng.random() < 0.5 and name[:2] == "--" else [name, value]


def _prepared(folder: Path) -> None:
    """The files that the commands name."""
    (folder / "lm.mmfree").symlink_to(samples().artifacts[0])
    (folder / "checkpoint").symlink_to(samples().checkpoint)
    (folder / "folder").mkdir()
    (folder / "empty").touch()
    (folder / "text").write_text("A text to read. " * 200)


def _command(rng: random.Random, folder: Path) -> Attempt:
    """A command in this process."""
    _prepared(folder)
    arguments, stdin = _arguments(rng), rng.choice((b"", b"text", b"\xff\xfe", b"\0"))

    def use() -> str:
        with chdir(folder):
            result = CliRunner().invoke(app, arguments, input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        fault = _fault(arguments, result.exit_code, result.stdout, result.stderr)
        assert not fault, fault
        return f"exit {result.exit_code}"

    return Attempt(repr(arguments)[:2000], use)


def _process(rng: random.Random, folder: Path) -> Attempt:
    """A command in a process of its own."""
    _prepared(folder)
    arguments = _arguments(rng)
    return Attempt(repr(arguments)[:2000], partial(_run, arguments, folder))


def _run(arguments: Sequence[str], folder: Path) -> str:
    words = [sys.executable, "-m", "mmfree_compiler", *arguments]
    environment = os.environ | {"PYTHONPATH": "", "PYTHONIOENCODING": "utf-8:surrogateescape"}
    done = subprocess.run(
        words,
        cwd=folder,
        env=environment,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    stdout, stderr = (out.decode(errors="surrogateescape") for out in (done.stdout, done.stderr))
    fault = _fault(arguments, done.returncode, stdout, stderr)
    assert not fault, fault
    return f"exit {done.returncode}"


def _fault(arguments: Sequence[str], code: int, stdout: str, stderr: str) -> str:
    """What is wrong with how a command ended; "" if nothing is."""
    said = f"exit {code}, stderr {stderr[-500:]!r}"
    if code not in CODES or "Traceback" in stderr or "This is a bug" in stderr:
        return said
    if code == 1 and not stdout and (stderr.count("\n") != 1 or stderr[:8] != "mmfree: "):
        return f"not one line: {said}"
    written = stderr if "run" in arguments else stdout + stderr  # a model may write anything
    if not all(c.isprintable() or c == "\n" for c in written):
        return f"control characters: {said}"
    return ""


ATTACKS: dict[str, tuple[float, Attack]] = {
    "command": (6, _command),
    "process": (0.2, _process),
}
