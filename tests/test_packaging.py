"""sdist -> wheel -> an empty environment with base dependencies only -> an artifact runs there."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from mmfree_compiler.runtime import load

ROOT = Path(__file__).resolve().parents[1]
PROMPT = [ord(letter) for letter in "The list"]
NEW_TOKENS = 20

# Run in the new environment, from /: what a deployment app does, and what must not be there.
APP = f"""
import importlib.util, sys
import numpy as np
from mmfree_compiler.runtime import load
session = load(sys.argv[1])
ids = [t.id for t in session.generate({PROMPT}, max_new_tokens={NEW_TOKENS}, temperature=0)]
logits, state = session(np.array([{PROMPT}]))
assert logits.shape[:2] == (1, {len(PROMPT)}) and np.isfinite(logits).all()
for library in ("torch", "tvm", "triton", "onnx", "typer", "networkx", "safetensors", "ziglang"):
    assert importlib.util.find_spec(library) is None, library
print(*ids)
"""

pytestmark = pytest.mark.slow


def _run(*command: str | Path, cwd: Path = ROOT) -> str:
    """What a command prints; its error output is the test's message when it fails."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    return folder


@pytest.fixture(scope="module")
def empty_environment(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment that has the wheel and its base dependencies only."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    (wheel,) = built.glob("*.whl")
    _run(python, "-m", "pip", "install", "-c", ROOT / "constraints.txt", wheel, cwd=folder)
    return python


def test_sdist_holds_each_room_once(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    tops = {name.partition("/")[0] for name in names}
    assert {"mmfree_compiler", "tests", "docs", "examples", "demo"} <= tops
    assert {"LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile"} <= tops
    assert not tops & {"passes", "backends", "runtime"}


def test_wheel_holds_the_whole_package(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = (path for path in (ROOT / "mmfree_compiler").rglob("*") if path.is_file())
    here = {path.relative_to(ROOT).as_posix() for path in files if path.suffix != ".pyc"}
    assert packed == here
    assert {"mmfree_compiler/backends/cpu/compile/threads.c", "mmfree_compiler/py.typed"} <= packed


def test_wheel_is_small(built: Path) -> None:
    """A runtime installs all of it. Half are the libraries of the explain page."""
    (wheel,) = built.glob("*.whl")
    assert wheel.stat().st_size < 1_500_000


def test_wheel_holds_the_licences(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    held = [name.partition("/licenses/")[2] for name in zipfile.ZipFile(wheel).namelist()]
    libraries = (ROOT / "mmfree_compiler/explaining/web/libraries").glob("*.LICENSE")
    expected = {"LICENSE", *(path.relative_to(ROOT).as_posix() for path in libraries)}
    assert expected == {name for name in held if name}


def test_runs_an_artifact_in_an_empty_environment(
    empty_environment: Path, tiny_artifact: Path
) -> None:
    printed = _run(empty_environment, "-c", APP, tiny_artifact, cwd=Path("/"))
    here = load(tiny_artifact).generate(PROMPT, max_new_tokens=NEW_TOKENS, temperature=0)
    assert [int(token) for token in printed.split()] == [token.id for token in here]
