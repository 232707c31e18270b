"""Libraries are compiled side by side or taken from the cache; the bytes are the same."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from op_modules import SmallLM

import mmfree_compiler as mmf
from mmfree_compiler.artifact import TensorEntry, binding
from mmfree_compiler.backends.cpu.compile import build
from mmfree_compiler.backends.cpu.compile.build import Recipe
from mmfree_compiler.backends.cpu.compile.codegen import shows_code
from mmfree_compiler.backends.cpu.compile.isa import ISAS
from mmfree_compiler.backends.cpu.compile.planned import PlannedProgram
from mmfree_compiler.backends.cpu.compile.tuning import Tuning
from mmfree_compiler.backends.cpu.layouts import TILE16_2BIT, TILE16_TRITS
from mmfree_compiler.building import jobs
from mmfree_compiler.compiled_model import CompiledModel
from mmfree_compiler.errors import ToolchainError
from mmfree_compiler.program import Node, Stage

NAMES = ("x86-64-v3", "portable")
TUNING = ISAS[NAMES[0]].tuning
RECIPES = {name: Recipe(TILE16_2BIT.name, ISAS[name].tuning) for name in NAMES}
Tensors = dict[str, TensorEntry]
Change = Callable[[PlannedProgram, Tensors], tuple[PlannedProgram, Tensors]]


@pytest.fixture(scope="module")
def model() -> CompiledModel:
    ids = torch.zeros(2, 3, dtype=torch.int64)
    return mmf.compile(SmallLM(), "cpu:" + ",".join(NAMES), example_inputs=(ids,))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The temporary folder; whatever a test does, nothing is left there."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(work))
    yield work
    assert list(work.iterdir()) == []


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The children that were started; there are two CPUs."""
    started: list[subprocess.Popen[bytes]] = []
    plain = subprocess.Popen

    class Popen(plain):  # type: ignore[valid-type,misc]  # mypy takes no variable as a base
        def __init__(self, command: list[str], **options: Any) -> None:
            super().__init__(command, **options)
            if jobs._CHILD in command:
                started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    monkeypatch.setattr(jobs, "resolve_threads", lambda _: 2)
    return started


def program_of(model: CompiledModel) -> PlannedProgram:
    program = model.artifact.program
    assert isinstance(program, PlannedProgram)
    return program


def built(model: CompiledModel) -> dict[str, bytes]:
    return build.libraries(program_of(model), model.artifact.entry.tensors, RECIPES)


def members(model: CompiledModel) -> dict[str, bytes]:
    """Its libraries as they were before they were bound to its manifest."""
    code = {name: model.artifact.members[f"kernels/{name}.so"].tobytes() for name in NAMES}
    return {name: binding.bound(data, bytes(binding.SIZE)) for name, data in code.items()}


@pytest.mark.usefixtures("cold", "folder")
def test_side_by_side_makes_the_same(
    model: CompiledModel, processes: list[subprocess.Popen[bytes]]
) -> None:
    assert list(built(model).items()) == list(members(model).items())
    assert [process.returncode for process in processes] == [0]


@pytest.mark.usefixtures("cold", "folder")
def test_one_cpu_needs_no_children(
    model: CompiledModel,
    processes: list[subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs, "resolve_threads", lambda _: 1)
    assert built(model) == members(model)
    assert processes == []


@pytest.mark.usefixtures("folder")
def test_only_what_is_missing_is_compiled(
    model: CompiledModel, cold: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def compiled(_: build.Job, name: str) -> bytes:
        asked.append(name)
        return name.encode()

    monkeypatch.setattr(build.Job, "compile", compiled)
    monkeypatch.setattr(jobs, "resolve_threads", lambda _: 1)
    for _ in range(2):
        assert built(model) == {name: name.encode() for name in NAMES}
    assert asked == ["portable", "x86-64-v3"]
    next(path for path in cold.iterdir() if b"portable" in path.read_bytes()).unlink()
    built(model)
    assert asked[2:] == ["portable"]


@pytest.mark.usefixtures("cold", "folder")
def test_code_that_is_to_be_shown_is_generated(
    model: CompiledModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    built(model)
    monkeypatch.setenv("MMFREE_DEBUG", "3")
    assert built(model) == members(model)
    assert capsys.readouterr().err.count("def prefill") == len(NAMES)


@pytest.mark.parametrize("level", ["", "0", "2", "yes", "²", "-3"])
def test_code_is_shown_from_the_third_level_on(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMFREE_DEBUG", level)
    assert not shows_code()


@pytest.mark.usefixtures("cold", "folder")
def test_a_failing_child_is_quoted(
    model: CompiledModel,
    processes: list[subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs, "_CHILD", "raise SystemExit('out of luck')")
    with pytest.raises(ToolchainError, match="out of luck"):
        built(model)
    assert [process.returncode for process in processes] == [1]


@pytest.mark.usefixtures("cold", "folder")
def test_ctrl_c_ends_the_children(
    model: CompiledModel,
    processes: list[subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "_CHILD", "import time; time.sleep(600)")
    monkeypatch.setattr(build.Job, "compile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        built(model)
    assert [process.returncode for process in processes] == [-9]


# --- what a key depends on ------------------------------------------------------------------------


def _node(change: Callable[[Node], Node]) -> Change:
    """Change a node of the last stage."""

    def changed(program: PlannedProgram, tensors: Tensors) -> tuple[PlannedProgram, Tensors]:
        last = program.body[-1]
        assert isinstance(last, Stage)
        stage = replace(last, tiles=(change(last.tiles[0]), *last.tiles[1:]))
        return replace(program, body=(*program.body[:-1], stage)), tensors

    return changed


def _value(program: PlannedProgram, tensors: Tensors) -> tuple[PlannedProgram, Tensors]:
    name, value = next(iter(program.values.items()))
    values = {**program.values, name: replace(value, width=value.width + 1)}
    return replace(program, values=values), tensors


def _constant(field: str, value: object) -> Change:
    def changed(program: PlannedProgram, tensors: Tensors) -> tuple[PlannedProgram, Tensors]:
        name, constant = next(iter(program.constants.items()))
        other = replace(constant, **{field: value})  # type: ignore[arg-type]  # names vary
        constants = {**program.constants, name: other}
        return replace(program, constants=constants), tensors

    return changed


def _tensor(field: str) -> Change:
    def changed(program: PlannedProgram, tensors: Tensors) -> tuple[PlannedProgram, Tensors]:
        name, entry = list(tensors.items())[-1]
        more = getattr(entry, field) + 1
        return program, tensors | {name: entry.model_copy(update={field: more})}

    return changed


def _storage(program: PlannedProgram, tensors: Tensors) -> tuple[PlannedProgram, Tensors]:
    storage = dict(program.storage)
    name, place = storage.popitem()
    storage[name] = replace(place, offset=place.offset + 16)
    return replace(program, storage=storage), tensors


def _states(program: PlannedProgram, tensors: Tensors) -> tuple[PlannedProgram, Tensors]:
    more = tuple(replace(slot, count=slot.count + 1) for slot in program.states)
    return replace(program, states=more), tensors


CHANGES = {
    "a value's width": _value,
    "a constant's shape": _constant("shape", (3, 5)),
    "a constant's dtype": _constant("dtype", "float16"),
    "a constant's layout": _constant("layout", TILE16_TRITS),
    "a constant's role": _constant("role", "taps"),
    "a constant's place": _tensor("offset"),
    "a constant's count": _tensor("count"),
    "a constant's bytes": _tensor("nbytes"),
    "an op": _node(lambda node: replace(node, op="identity")),
    "an attribute": _node(lambda node: replace(node, attrs={"eps": 1e-9})),
    "an operand": _node(lambda node: replace(node, inputs=node.inputs[::-1])),
    "a value's place": _storage,
    "a state": _states,
    "an arena": lambda program, tensors: (replace(program, arenas={"codes": 1}), tensors),
}


def _key(program: PlannedProgram, tensors: Tensors, name: str = NAMES[0]) -> str:
    return build.Job.of(program, tensors, RECIPES).key(name)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_misses(change: Change, model: CompiledModel) -> None:
    before = program_of(model), dict(model.artifact.entry.tensors)
    assert _key(*change(*before)) != _key(*before)


def test_data_and_source_lines_do_not_matter(model: CompiledModel) -> None:
    before = program_of(model), dict(model.artifact.entry.tensors)
    parts = {
        name: replace(constant, parts=tuple(np.zeros_like(part) for part in constant.parts))
        for name, constant in before[0].constants.items()
    }
    moved, _ = _node(lambda node: replace(node, source="elsewhere.py:1"))(*before)
    assert _key(replace(moved, constants=parts), before[1]) == _key(*before)


def test_other_variants_do_not_matter(model: CompiledModel) -> None:
    """What was compiled for several variants is found when one of them is asked for."""
    program, tensors = program_of(model), dict(model.artifact.entry.tensors)
    alone = replace(program, layouts={NAMES[0]: program.layouts[NAMES[0]]})
    assert _key(alone, tensors) == _key(program, tensors)


def test_what_compiles_matters(model: CompiledModel, monkeypatch: pytest.MonkeyPatch) -> None:
    job = build.Job.of(program_of(model), model.artifact.entry.tensors, RECIPES)
    keys = {job.key(name) for name in NAMES}
    changes = {
        "sources": lambda: "another version of this package",
        "version": lambda name: f"another {name}",
        "identity": lambda triple: f"another linker for {triple}",
    }
    for name, change in changes.items():
        with monkeypatch.context() as context:
            context.setattr(build, name, change)
            keys.add(job.key(NAMES[0]))
    others = (Recipe(TILE16_2BIT.name, Tuning(tokens=2)), Recipe(TILE16_TRITS.name, TUNING))
    keys |= {replace(job, recipes={NAMES[0]: recipe}).key(NAMES[0]) for recipe in others}
    assert len(keys) == len(NAMES) + len(changes) + len(others)


@pytest.mark.usefixtures("cold", "folder")
def test_a_full_disk_is_said_before_it_ends_the_process(
    model: CompiledModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "ROOM", 1 << 62)
    with pytest.raises(ToolchainError, match="TMPDIR"):
        built(model)
