"""`mmfree` as a process of its own: signals, pipes, and what is not installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmfree_compiler import interrupts


def run_python(
    code: str, *arguments: str | Path, encoding: str = "utf-8"
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_a_pipe_that_closes(tiny_artifact: Path) -> None:
    """As in `mmfree run ... | head -c 1`."""
    options = ("--prompt", "a", "--max-new-tokens", "1000000000", "--threads", "1")
    command = [sys.executable, "-m", "mmfree_compiler", "run", str(tiny_artifact), *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141  # as of a program that SIGPIPE ends


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["doctor"], ["doctor", "--json"]])
def test_a_pipe_that_is_closed_from_the_start(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "mmfree_compiler", *arguments]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_full_disk_is_an_error_whatever_is_printed() -> None:
    command = [sys.executable, "-m", "mmfree_compiler", "doctor", "--json"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (1, b"mmfree: stdout: No space left on device\n")


def test_what_a_terminal_cannot_show(tiny_artifact: Path) -> None:
    code = "from mmfree_compiler.cli import main; main()"
    shown = run_python(code, "inspect", tiny_artifact, encoding="ascii:strict")
    assert shown.returncode == 0, shown.stderr


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_without_the_command_lines_packages(package: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; from mmfree_compiler.cli import main"
    done = run_python(f"{code}; main()", "--help")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"mmfree needs {package}: pip install 'mmfree-compiler[cli]'\n"


def test_run_needs_neither_torch_nor_tvm(tiny_artifact: Path) -> None:
    absent = ("torch", "tvm", "networkx", "safetensors", "platformdirs")
    code = f"import sys; sys.modules.update(dict.fromkeys({absent}))"
    code += "; from mmfree_compiler.cli import main; main()"
    options = ("--prompt", "a", "--max-new-tokens", "3", "--threads", "1", "--json")
    done = run_python(code, "run", tiny_artifact, *options)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["tokens"]) == 3
    assert run_python(code, "inspect", tiny_artifact).returncode == 0
    refused = run_python(code, "compile", "nowhere", "-o", "m")
    assert refused.returncode == 1
    assert refused.stderr.startswith("mmfree: torch: is not installed")


@pytest.mark.parametrize("number", interrupts.ENDING)
def test_a_signal_while_generating(number: int, tiny_artifact: Path) -> None:
    options = ("--prompt", "a", "--max-new-tokens", "1000000000", "--threads", "1")
    command = [sys.executable, "-m", "mmfree_compiler", "run", str(tiny_artifact), *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        process.send_signal(number)
        try:
            _, stderr = process.communicate(timeout=60)
        finally:
            process.kill()  # if it ignores the signal, the tests must not wait for it
    assert stderr == b""
    assert process.returncode == 128 + number


# A command that imports torch and prints how long its threads spin; libgomp says it on stderr.
SPINNING = """
from mmfree_compiler import cli
import mmfree_compiler.cli.app as commands
commands.app = lambda prog_name: __import__("torch")
cli.main()
"""


@pytest.mark.parametrize(("given", "spins"), [(None, "1000"), ("77", "77")])
def test_threads_that_wait_sleep(given: str | None, spins: str) -> None:
    """Unless the user wants something else."""
    environment = os.environ | {"OMP_DISPLAY_ENV": "verbose"}
    if given:
        environment["GOMP_SPINCOUNT"] = given
    command = [sys.executable, "-c", SPINNING]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("torch has another OpenMP than GNU's")
    assert f"GOMP_SPINCOUNT = '{spins}'" in done.stderr
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr
