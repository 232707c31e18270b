"""The rules of docs/architecture.md, read from imports and files."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mmfree_compiler"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 300

# room -> (rooms it may import, libraries it may import). A room may import itself; rooms that are
# not listed (compiler, cli, ...) know all.
RULES: dict[str, tuple[set[str], set[str]]] = {
    "errors": (set(), set()),
    "wording": (set(), set()),
    "notes": (set(), set()),
    "debug": (set(), set()),
    "interrupts": (set(), set()),
    "cpus": (set(), set()),
    "parallel": ({"cpus"}, {"torch"}),
    "target": ({"errors"}, set()),
    "program": ({"errors", "program_text"}, {"numpy"}),
    "program_text": ({"program"}, set()),
    "layouts": ({"errors"}, {"numpy"}),
    "artifact": ({"errors", "program"}, {"numpy", "pydantic"}),
    "runtime": (
        {"artifact", "cpus", "errors", "layouts", "program", "target", "wording"},
        {"numpy", "pydantic", "tokenizers", "tvm_ffi"},
    ),
    "ops": ({"errors"}, {"torch"}),
    "models": (
        {"errors", "interrupts", "ops", "parallel", "wording"},
        {"numpy", "pydantic", "safetensors", "tokenizers", "torch"},
    ),
    "repeats": (set(), {"torch"}),
    "inplace": ({"repeats"}, {"torch"}),
    "adapters": ({"ops"}, {"torch"}),
    "trace": ({"adapters", "errors", "inplace", "interrupts", "repeats"}, {"torch"}),
    "explain": ({"notes"}, {"torch"}),
    "passes": (
        {"debug", "errors", "explain", "layouts", "notes", "ops", "parallel", "program"}
        | {"wording"},
        {"networkx", "numpy", "torch"},
    ),
    # `runtime`: the launcher that runs what a backend emits, and the table of CPU variants.
    "backends": (
        {"artifact", "debug", "errors", "interrupts", "layouts", "ops", "program", "runtime"}
        | {"target"},
        {"numpy", "torch"},
    ),
}
# The libraries that only one folder may import.
CONFINED = {"tvm": "backends/cpu", "platformdirs": "backends/cpu"}
BASE_INSTALL = {"numpy", "pydantic", "tvm_ffi"}
# Folders of one machine: their names are put together here so that this file has none.
MACHINE_PATH = re.compile("/(?:" + "|".join(["work", "root", "tmp", "farm"]) + r")\b")


def _name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(path: Path) -> Iterator[str]:
    """Every dotted name that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{_name(path)}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _internal(path: Path) -> Iterator[tuple[str, ...]]:
    """What a module imports of this package, as parts after the package's name."""
    for name in _imports(path):
        package, *parts = name.split(".")
        if package == PACKAGE.name:
            yield tuple(parts)


def _libraries(path: Path) -> set[str]:
    tops = {name.split(".")[0] for name in _imports(path)}
    return tops - sys.stdlib_module_names - {PACKAGE.name}


every_module = pytest.mark.parametrize("path", MODULES, ids=_name)


@every_module
def test_rooms_import_what_they_may(path: Path) -> None:
    room = _room(path)
    if room in RULES:
        imported = {parts[0] for parts in _internal(path)} - {room}
        assert imported <= RULES[room][0]


@every_module
def test_libraries_stay_in_their_rooms(path: Path) -> None:
    libraries = _libraries(path)
    for library, folder in CONFINED.items():
        assert library not in libraries or _name(path).startswith(folder + "/")
    if _room(path) in RULES:
        assert libraries - set(CONFINED) <= RULES[_room(path)][1]


@every_module
def test_backends_do_not_import_each_other(path: Path) -> None:
    parts = path.relative_to(PACKAGE).parts
    folders = {folder.name for folder in (PACKAGE / "backends").iterdir() if folder.is_dir()}
    if parts[0] == "backends" and parts[1] in folders:
        others = folders - {parts[1]}
        assert not {name[1] for name in _internal(path) if name[0] == "backends"} & others


def _public(tree: ast.Module) -> Iterator[str]:
    """Names that a module defines or takes from this package, those for type checkers included."""
    for node in [
        *tree.body,
        *(inner for n in tree.body if isinstance(n, ast.If) for inner in n.body),
    ]:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith(PACKAGE.name):
            yield from (alias.asname or alias.name for alias in node.names)


def _declared(tree: ast.Module) -> set[str]:
    """The module's `__all__`, empty without one. That it is sorted is checked by ruff's RUF022."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


@pytest.mark.parametrize("room", ["", "artifact", "models", "runtime"])
def test_doors_declare_their_public_names(room: str) -> None:
    tree = ast.parse((PACKAGE / room / "__init__.py").read_text())
    assert _declared(tree) == {name for name in _public(tree) if not name.startswith("_")}


@every_module
def test_declared_names_exist(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert _declared(tree) <= set(_public(tree))


def test_the_runtime_needs_the_base_install_only() -> None:
    code = f"import {PACKAGE.name}.runtime, sys; print(*{{n.split('.')[0] for n in sys.modules}})"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = set(result.stdout.split())
    compiler = {library for _, libraries in RULES.values() for library in libraries} | set(CONFINED)
    assert not loaded & (compiler - BASE_INSTALL)


def _tracked() -> list[Path]:
    result = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if result.returncode:
        pytest.skip("not a git checkout")
    paths = (ROOT / name for name in result.stdout.split("\0") if name)
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def test_no_file_is_too_long() -> None:
    sources = [path for path in _tracked() if path.suffix in (".py", ".c")]
    lengths = {path.name: len(path.read_text().splitlines()) for path in sources}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_no_machine_paths() -> None:
    texts = {path: path.read_bytes().decode("utf-8", "replace") for path in _tracked()}
    sources = {path: text for path, text in texts.items() if "\0" not in text}
    assert [str(path) for path, text in sources.items() if MACHINE_PATH.search(text)] == []


@pytest.mark.parametrize("room", ["passes", "backends", "runtime"])
def test_links_show_the_rooms(room: str) -> None:
    assert (ROOT / room).readlink() == Path(PACKAGE.name, room)
