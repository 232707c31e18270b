"""What the command line does with errors: one line, an exit code, nothing half done."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from cli_said import assert_one_line, invoke
from torch import nn
from typer.main import get_command
from typer.testing import CliRunner

from mmfree_compiler import cli, compiler, doctor, interrupts, models
from mmfree_compiler.cli.app import COMMANDS, app
from mmfree_compiler.cli.run import run
from mmfree_compiler.errors import ArtifactError, InputError, MmfreeError
from mmfree_compiler.runtime import load

MODEL_COMMANDS = {
    "run": ["--prompt", "a"],
    "inspect": [],
    "bench": [],
    "disasm": [],
    "verify": ["--against", "nowhere"],
}
model_commands = pytest.mark.parametrize("command", MODEL_COMMANDS)


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """`cli.main` is made for a process of its own: it leaves other handlers of signals."""
    before = {number: signal.getsignal(number) for number in interrupts.ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@model_commands
def test_missing_file(command: str) -> None:
    said = invoke(command, "nowhere", *MODEL_COMMANDS[command])
    assert_one_line(said, "nowhere", "does not exist")


READ_BY_TEXT = pytest.mark.parametrize(
    "command", sorted(MODEL_COMMANDS.keys() - {"inspect", "disasm"})
)


@pytest.mark.parametrize("command", ["bench", "run", "tune", "verify"])
def test_one_target_at_a_time(command: str, tmp_path: Path) -> None:
    """Of several, the last would be taken and the others left out silently."""
    options = MODEL_COMMANDS.get(command, ())
    said = invoke(command, tmp_path, *options, "--target", "cuda", "--target", "cpu")
    assert_one_line(said, "--target", "is given more than once", "one target at a time")


@READ_BY_TEXT
def test_a_compiled_module(command: str, tmp_path: Path) -> None:
    model = tmp_path / "module.mmfree"
    module = nn.Sequential(models.BitLinear(8, 16), nn.SiLU(), models.BitLinear(16, 8))
    compiled = compiler.compile(module, "cpu:portable", example_inputs=(torch.ones(2, 8),))
    compiled.save(model)
    said = invoke(command, model, *MODEL_COMMANDS[command])
    words = "module.mmfree: is a compiled module, not a language model: it takes input_1 (..., 8)"
    assert_one_line(said, words, f"mmfree_compiler.load({str(model)!r})(arrays)")


@model_commands
def test_a_saved_state(command: str, tiny_artifact: Path, tmp_path: Path) -> None:
    load(tiny_artifact).prefill([1]).save(tmp_path / "a.state")
    said = invoke(command, tmp_path / "a.state", *MODEL_COMMANDS[command])
    assert_one_line(said, "a.state: is a saved state, not a model. Name a compiled model")


@model_commands
def test_damaged_artifact(command: str, tiny_artifact: Path, tmp_path: Path) -> None:
    data = bytearray(tiny_artifact.read_bytes())
    data[len(data) // 2] ^= 1
    damaged = tmp_path / "damaged.mmfree"
    damaged.write_bytes(data)
    said = invoke(command, damaged, *MODEL_COMMANDS[command], "--json")
    assert_one_line(said, "damaged.mmfree", "SHA-256")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--prompt", ""], ["prompt"]),
        (["--prompt", "a", "--threads", "0"], ["mmfree: --threads: 0 is not"]),
        (["--prompt", "a", "--temperature", "-1"], ["mmfree: --temperature: -1 is out"]),
        (["--prompt", "a", "--max-new-tokens", "0"], ["mmfree: --max-new-tokens: 0 is out"]),
        (["--prompt", "a", "--stop", ""], ["mmfree: --stop: "]),
        (["--prompt", "ab", "--max-prompt-bytes", "1"], ["--prompt: ", "a larger --max-prompt-b"]),
    ],
)
def test_bad_run(tiny_artifact: Path, options: list[str], words: list[str]) -> None:
    assert_one_line(invoke("run", tiny_artifact, *options), *words)


def test_stdin_that_is_not_utf_8(tiny_artifact: Path) -> None:
    result = CliRunner().invoke(app, ["run", str(tiny_artifact), "--prompt", "-"], input=b"\xff")
    assert_one_line((result.exit_code, result.stdout, result.stderr), "stdin", "UTF-8")


def test_stdin_that_is_closed(tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match=r"stdin: is closed"):
        run(tiny_artifact, "-")


@pytest.mark.parametrize("threads", ["0", "x", "1,", "-1", "", "1,257", "9" * 5000])
def test_bad_bench_threads(tiny_artifact: Path, threads: str) -> None:
    said = invoke("bench", tiny_artifact, f"--threads={threads}")
    assert_one_line(said, "threads", "from 1 to 256, separated by commas. Write --threads 1,2")


def test_bench_of_more_tokens_than_memory_holds(tiny_artifact: Path) -> None:
    code, _, stderr = invoke("bench", tiny_artifact, "--prompt-tokens", str(10**12))
    assert code == 2
    assert "--prompt-tokens" in stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_a_help_text(command: str) -> None:
    group: Any = get_command(app)  # typer says that it is a command, not that it has some
    documented = group.commands[command].params
    assert [option.name for option in documented if not option.help] == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--lr", "nan"], "mmfree: --learning-rate: nan is out of range"),
        (["--lr", "1e30", "--steps", "50"], "mmfree: --learning-rate 1e+30: makes the loss"),
        (["--hidden-size", "1000000"], "Lower --hidden-size, --layers, --batch or --length"),
        (["--length", "900"], "/text: too short: 79 held-out tokens for sequences of 900. Give"),
    ],
)
def test_train_names_its_options(options: list[str], words: str, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"spam and eggs, " * 90)
    small = ("--hidden-size", "32", "--layers", "1", "--batch", "2", "--length", "16")
    said = invoke("train", tmp_path / "text", "-o", tmp_path / "c", *small, *options)
    assert_one_line(said, words)


def test_words_of_other_errors_are_left_alone(tmp_path: Path) -> None:
    """A path may be called what an option is called."""
    assert_one_line(invoke("train", "seed", "-o", tmp_path / "c"), "mmfree: seed: cannot be read")


def test_training_text_that_is_missing(tmp_path: Path) -> None:
    said = invoke("train", tmp_path / "nowhere", "-o", tmp_path / "c")
    assert_one_line(said, "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_the_python_corpus_stands_alone(tmp_path: Path) -> None:
    assert_one_line(invoke("train", "python", tmp_path, "-o", tmp_path / "c"), "corpus")


def test_verify_needs_a_readable_text(
    tiny_artifact: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    text = tmp_path / "nowhere"
    said = invoke("verify", tiny_artifact, "--against", tiny_checkpoint, "--text", text)
    assert_one_line(said, "nowhere")


@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["run"],
        ["run", "m", "--prompt"],
        ["bench", "--x"],
        ["compile", "c", "-o", "m", "--density", "2"],
    ],
)
def test_wrong_usage(arguments: list[str]) -> None:
    code, stdout, stderr = invoke(*arguments)
    assert (code, stdout) == (2, "")
    assert "Traceback" not in stderr


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make `mmfree doctor` end with `error`."""

    def examine(_: bool) -> NoReturn:
        raise error

    monkeypatch.setattr(doctor, "examine", examine)


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, KeyboardInterrupt())
    assert invoke("doctor") == (130, "", "")


def test_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, ModuleNotFoundError(name="torch.nn"))
    assert_one_line(invoke("doctor"), "torch", "is not installed", "pip install")


def test_debug_shows_tracebacks(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, ArtifactError("a", "b"))
    assert_one_line(invoke("doctor"), "mmfree: a: b")
    monkeypatch.setenv("MMFREE_DEBUG", "1")
    result = CliRunner().invoke(app, ["doctor"])
    assert isinstance(result.exception, MmfreeError)


def test_a_bug_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, RuntimeError("odd"))
    monkeypatch.setattr(sys, "argv", ["mmfree", "doctor"])
    with pytest.raises(SystemExit, match="RuntimeError: odd"):
        cli.main()


def test_a_full_disk_behind_stdout_is_not_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, OSError(28, "No space left on device"))
    monkeypatch.setattr(sys, "argv", ["mmfree", "doctor"])
    with pytest.raises(SystemExit, match="stdout: No space left") as left:
        cli.main()
    assert "bug" not in str(left.value)


def test_the_table_of_commands() -> None:
    code, stdout, _ = invoke("--help")
    assert code == 0
    assert all(f" {name} " in stdout for name in COMMANDS)
