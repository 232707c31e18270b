"""The rules of docs/architecture.md, read from imports and files."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from mmfree_compiler import backends

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mmfree_compiler"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 300

_BACKEND = {"artifact", "backends", "elementary", "errors", "parallel", "program", "wording"}
# unit -> (units it may import, libraries it may import). A unit is a top-level module or package,
# or the folder of one backend; it may import itself. Units that are not listed (compiler, cli, ...)
# may import all but the folder of a backend.
RULES: dict[str, tuple[set[str], set[str]]] = {
    "wording": (set(), set()),
    "errors": ({"wording"}, set()),
    "notes": (set(), set()),
    "structure": (set(), set()),
    "debug": (set(), set()),
    "interrupts": (set(), set()),
    "cpus": (set(), set()),
    "elementary": (set(), set()),
    "temporary": ({"interrupts"}, set()),
    "threads": ({"cpus", "errors"}, set()),
    "parallel": ({"cpus"}, {"torch"}),
    "modes": ({"assumptions"}, {"torch"}),
    "target": ({"errors"}, set()),
    "program": ({"notes", "structure"}, {"numpy"}),
    "program_rules": ({"errors", "program"}, set()),
    "program_text": ({"program"}, set()),
    "fingerprint": ({"elementary", "parallel", "program", "program_text"}, {"numpy"}),
    "artifact": (
        {"elementary", "errors", "program", "structure", "wording"},
        {"cryptography", "numpy", "pydantic"},
    ),
    "building": ({"errors", "interrupts", "temporary", "threads"}, set()),
    # The table of backends and the interface that they keep to.
    "backends": (
        {"artifact", "elementary", "errors", "program", "target", "wording"},
        {"networkx", "numpy", "pydantic"},
    ),
    "runtime": (
        {"artifact", "backends", "elementary", "errors", "target", "wording"},
        {"numpy", "pydantic", "tokenizers"},
    ),
    "in_torch": ({"artifact", "backends", "errors", "wording"}, {"torch"}),
    "ops": ({"elementary", "errors", "program"}, {"torch"}),
    "models": (
        {"errors", "interrupts", "notes", "ops", "parallel", "temporary", "wording"},
        {"numpy", "pydantic", "safetensors", "tokenizers", "torch"},
    ),
    "repeats": ({"origin"}, {"torch"}),
    "inplace": ({"repeats"}, {"torch"}),
    "adapters": ({"modes", "ops"}, {"torch"}),
    "origin": (set(), {"torch"}),
    "assumptions": ({"errors", "origin", "wording"}, {"numpy", "torch"}),
    "trace": (
        {"adapters", "assumptions", "errors", "inplace", "interrupts", "modes", "origin"}
        | {"repeats", "wording"},
        {"torch"},
    ),
    "graph_text": ({"notes"}, {"torch"}),
    "passes": (
        {"debug", "elementary", "errors", "graph_text", "notes", "ops", "origin", "parallel"}
        | {"program", "program_rules", "program_text", "structure", "wording"},
        {"numpy", "torch"},
    ),
    "contents": ({"artifact"}, set()),
    "tables": ({"wording"}, {"rich"}),
    "same_bits": ({"backends", "errors", "runtime"}, {"numpy"}),
    "backends.cpu": (
        _BACKEND | {"building", "debug", "interrupts", "ops", "temporary", "threads"},
        {"numpy", "pydantic"},
    ),
    "backends.cuda": (_BACKEND | {"building"}, {"numpy", "pydantic"}),
    "backends.fpga": (_BACKEND, {"numpy", "pydantic"}),
    "backends.onnx": (_BACKEND | {"ops", "threads"}, {"google", "numpy", "pydantic", "torch"}),
    "backends.reference": (
        {"artifact", "backends", "errors", "ops", "program"},
        {"numpy", "torch"},
    ),
}
# The libraries that only these folders, or files, may import.
CONFINED = {
    "tvm": ("backends/cpu/compile",),
    "platformdirs": ("building",),
    "networkx": ("backends/liveness.py",),
    "tvm_ffi": ("backends/cpu/run",),
    "cuda": ("backends/cuda/run",),
    "triton": ("backends/cuda/compile",),
    "onnx": ("backends/onnx/compile", "backends/onnx/importing"),
    "onnxruntime": ("backends/onnx/run",),
}
BASE_INSTALL = {"cuda", "numpy", "pydantic", "tvm_ffi"}
# A backend's kind in quotes, alone or with options. The reference is left out: checks run it.
KIND = re.compile(
    "[\"'](?:" + "|".join(backends.BUILT_IN.keys() - {"reference"}) + ")(?::.*?)?[\"']"
)
NAMING = ("backends/__init__.py", "target.py")  # the table, and the default
# What else is called so: torch's device, a controller of Linux's cgroups.
OTHER_MEANINGS = re.compile("autocast|map_location|controllers|sys/fs/cgroup")
# Folders of one machine: their names are put together here so that this file has none.
MACHINE_PATH = re.compile("/(?:" + "|".join(["work", "root", "tmp", "farm"]) + r")\b")


def _name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def _unit(parts: tuple[str, ...]) -> str:
    """The unit of a module, named by its parts after the package's name."""
    if parts[0] == "backends" and len(parts) > 1 and (PACKAGE / "backends" / parts[1]).is_dir():
        return f"backends.{parts[1]}"
    return parts[0]


def _unit_of(path: Path) -> str:
    return _unit(path.relative_to(PACKAGE).with_suffix("").parts)


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


def _units_imported(path: Path) -> set[str]:
    return {_unit(parts) for parts in _internal(path) if parts} - {_unit_of(path)}


@every_module
def test_units_import_what_they_may(path: Path) -> None:
    if _unit_of(path) in RULES:
        assert _units_imported(path) <= RULES[_unit_of(path)][0]


@every_module
def test_libraries_stay_in_their_units(path: Path) -> None:
    libraries = _libraries(path)
    for library in libraries & CONFINED.keys():
        assert f"{_name(path)}/".startswith(tuple(f"{place}/" for place in CONFINED[library]))
    if _unit_of(path) in RULES:
        assert libraries - set(CONFINED) <= RULES[_unit_of(path)][1]


@every_module
def test_nothing_imports_a_backend(path: Path) -> None:
    """The table does when its kind is asked for; the compiler's checks run the reference."""
    folders = {unit for unit in _units_imported(path) if unit.startswith("backends.")}
    assert folders <= {"backends.reference"}
    assert not folders or _unit_of(path) == "checking"


@every_module
def test_no_backend_is_named_outside_its_folder(path: Path) -> None:
    if _unit_of(path).startswith("backends.") or _name(path) in (
        "backends/__init__.py",
        "target.py",
    ):
        return
    lines = path.read_text().splitlines()
    assert [x for x in lines if KIND.search(x) and not OTHER_MEANINGS.search(x)] == []


def test_the_table_and_the_default_name_each_backend_once() -> None:
    found = {name: KIND.findall((PACKAGE / name).read_text()) for name in NAMING}
    assert {name: len(kinds) for name, kinds in found.items()} == {
        "backends/__init__.py": len(backends.BUILT_IN.keys() - {"reference"}),
        "target.py": 1,
    }


def test_no_units_import_each_other_in_a_circle() -> None:
    imports: dict[str, set[str]] = {}
    for path in MODULES:
        if path != PACKAGE / "__init__.py":  # what it names is imported when first used
            imports.setdefault(_unit_of(path), set()).update(_units_imported(path))
    list(TopologicalSorter(imports).static_order())  # raises CycleError


def test_the_package_of_a_backend_needs_the_base_install_only() -> None:
    kinds = ", ".join(repr(kind) for kind in backends.BUILT_IN)
    code = f"import sys; from {PACKAGE.name} import backends, errors\nfor kind in ({kinds},):\n"
    code += "    b = backends.get(kind); list(b.checks()); b.parse('')\n"
    code += "    try: b.here()\n    except errors.TargetError: pass\n"  # without a GPU
    assert not _loaded(code) & (_heavy() - BASE_INSTALL)


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


@pytest.mark.parametrize("package", ["", "artifact", "models", "runtime"])
def test_packages_declare_their_public_names(package: str) -> None:
    tree = ast.parse((PACKAGE / package / "__init__.py").read_text())
    assert _declared(tree) == {name for name in _public(tree) if not name.startswith("_")}


@every_module
def test_declared_names_exist(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert _declared(tree) <= set(_public(tree))


def _heavy() -> set[str]:
    """Every library that some unit may import."""
    return {library for _, libraries in RULES.values() for library in libraries} | set(CONFINED)


def _loaded(code: str) -> set[str]:
    """The top-level modules in a process that ran `code`."""
    code += "\nimport sys; print(*{name.split('.')[0] for name in sys.modules})"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


def test_the_runtime_needs_the_base_install_only() -> None:
    assert not _loaded(f"import {PACKAGE.name}.runtime") & (_heavy() - BASE_INSTALL)


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


@pytest.mark.parametrize("package", ["passes", "backends", "runtime"])
def test_links_show_the_packages(package: str) -> None:
    assert (ROOT / package).readlink() == Path(PACKAGE.name, package)
