"""The CPU's Program passes: golden text after each, and what each promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from op_modules import TinyLM, mm
from torch import Tensor, nn

from mmfree_compiler import passes
from mmfree_compiler.backends.copy_rows import CopyRows
from mmfree_compiler.backends.cpu.compile.compiler import CpuCompiler
from mmfree_compiler.backends.cpu.compile.density import Density, densities
from mmfree_compiler.backends.cpu.compile.packed import packed_name, reading
from mmfree_compiler.backends.cpu.compile.passes.pack_weights import PackWeights
from mmfree_compiler.backends.cpu.compile.planned import PackedProgram, PlannedProgram
from mmfree_compiler.backends.cpu.layouts import LAYOUTS, TILE16_2BIT, TILE16_TRITS
from mmfree_compiler.backends.cpu.spec import Spec
from mmfree_compiler.backends.cpu.strides import row_stride
from mmfree_compiler.checking import run_program
from mmfree_compiler.program import Loop, Program, Stage
from mmfree_compiler.program_rules import verify
from mmfree_compiler.program_text import listing
from mmfree_compiler.trace import trace
from mmfree_compiler.wording import counted

SPEC = Spec(("x86-64-v3", "portable"), density="2")
IDS = torch.randint(37, (2, 5), generator=torch.Generator().manual_seed(0))


def rolled(module: nn.Module, *inputs: Tensor) -> Program:
    """The Program that a backend is given."""
    graph = passes.run(passes.GRAPH, trace(module, inputs))
    return passes.run(passes.PROGRAM, passes.lower(graph))


@pytest.fixture(scope="module")
def tiny() -> Program:
    return rolled(TinyLM(), IDS)


PASSES = CpuCompiler().passes(Program("lm", (), (), {}, {}, (), ()), SPEC)


@pytest.fixture(scope="module")
def programs(tiny: Program) -> dict[str, Program]:
    """TinyLM's program after each pass."""
    found = {}
    for step in PASSES:
        tiny = step(tiny)
        found[step.name] = tiny
    return found


@pytest.mark.parametrize("name", ["pack_weights", "plan_memory"])
def test_program_text(
    name: str, programs: dict[str, Program], golden: Callable[[str, str], None]
) -> None:
    golden(f"program_{name}", listing(programs[name]))


def test_passes_leave_notes(tiny: Program, programs: dict[str, Program]) -> None:
    notes = programs["plan_memory"].notes[len(tiny.notes) :]
    assert [(note.pass_name, note.node, note.text) for note in notes] == [
        ("copy_rows", "program", "0 inputs and 0 outputs copied"),
        ("pack_weights", "x86-64-v3", "2 bits per weight: asked for"),
        ("pack_weights", "portable", "2 bits per weight: asked for"),
        ("plan_memory", "arenas", "elements per token: shared 192, private 64, codes 192"),
    ]


# --- copies --------------------------------------------------------------------------------------


def residual(x: Tensor) -> Tensor:
    """Layers on the caller's own rows, which become a loop."""
    for _ in range(4):
        y = mm.silu(mm.rms_norm(x, torch.ones(16), 1e-6))
        x = mm.add(x, mm.rms_norm(y, torch.ones(16), 1e-6))
    return x


class Graph(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


# what -> (the function, inputs that are copied, outputs that are copied)
COPIES: dict[str, tuple[Callable[[Tensor], Any], int, int]] = {
    "nothing": (lambda x: mm.silu(residual(mm.silu(x))), 0, 0),
    "the start of a loop": (lambda x: mm.silu(residual(x)), 1, 0),
    "the result of a loop": (lambda x: residual(mm.silu(x)), 0, 1),
    "both": (residual, 1, 1),
    "an input as output": (lambda x: (mm.silu(x), x), 0, 1),
    "inputs alone": (lambda x: (x, x), 0, 2),
    "what rows make": (lambda x: mm.rms_norm(x, torch.ones(16), 1e-6), 0, 1),
    "an output of two names": (lambda x: [mm.silu(x)] * 3, 0, 2),
    "an output that is read": (lambda x: (mm.silu(x), mm.tanh(mm.silu(x))), 0, 0),
}


@pytest.mark.parametrize("what", COPIES)
def test_copies(what: str) -> None:
    function, inputs, outputs = COPIES[what]
    x = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(0))
    program = rolled(Graph(function), x)
    copied = CopyRows()(program)
    verify(copied, "copy_rows")
    made = [
        name for s in copied.body if isinstance(s, Stage) for n in s.tiles for name in n.outputs
    ]
    assert set(copied.outputs) <= set(made)  # by tiles, outside loops
    assert len(set(copied.outputs)) == len(copied.outputs) == len(program.outputs)
    loops = [step for step in copied.body if isinstance(step, Loop)]
    assert not {first for loop in loops for first, _ in loop.carried} & set(copied.inputs)
    words = f"{counted(inputs, 'input')} and {counted(outputs, 'output')} copied"
    assert copied.notes[-1].text == words
    before, after = run_program(program, (x,)), run_program(copied, (x,))
    assert all(map(torch.equal, before, after))


def test_the_text_of_copies(golden: Callable[[str, str], None]) -> None:
    golden("program_copy_rows", listing(CopyRows()(rolled(Graph(residual), torch.zeros(2, 3, 16)))))


# --- packing -------------------------------------------------------------------------------------

BOTH = {
    "wide": Density(TILE16_TRITS.name, "wide reads from DRAM"),
    "narrow": Density(TILE16_2BIT.name, "narrow unpacks slowly"),
    "other": Density(TILE16_TRITS.name, "other reads from DRAM"),
}


@pytest.fixture(scope="module")
def packed(tiny: Program) -> PackedProgram:
    """TinyLM's weights in two layouts."""
    return PackWeights(BOTH)(tiny)


def test_each_layout_that_a_variant_reads_is_packed_once(
    tiny: Program, packed: PackedProgram
) -> None:
    verify(packed, "pack_weights")
    for name, constant in tiny.constants.items():
        layouts = [TILE16_TRITS, TILE16_2BIT] if constant.role == "ternary" else [None]
        for layout in layouts:
            made = packed.constants[packed_name(name, layout.name) if layout else name]
            assert layout in (None, made.layout)
            assert (made.role, made.shape) == (constant.role, constant.shape)
            for part in range(len(constant.parts)):
                assert np.array_equal(made.array(part), constant.array(part))
    ternary = [c for c in tiny.constants.values() if c.role == "ternary"]
    assert len(packed.constants) == len(tiny.constants) + len(ternary)
    assert packed.layouts == {name: density.layout for name, density in BOTH.items()}


def test_rows_are_padded_with_zeros(packed: PackedProgram) -> None:
    for constant in packed.constants.values():
        if constant.role == "row":
            for part in constant.parts:
                assert part.shape[-1] % 16 == 0
                assert not part[..., constant.shape[-1] :].any()


def test_a_program_reads_one_layout(tiny: Program, packed: PackedProgram) -> None:
    """At first that of the first variant; each gives the same numbers."""
    expected = run_program(tiny, (IDS,))
    for program, layout in (
        (packed, TILE16_TRITS.name),
        (reading(packed, TILE16_2BIT.name), TILE16_2BIT.name),
        (reading(reading(packed, TILE16_2BIT.name), TILE16_TRITS.name), TILE16_TRITS.name),
    ):
        verify(program, "reading")
        read = {name for node in program.nodes() for name in node.inputs if name}
        found = {c.layout.name for n, c in program.constants.items() if n in read}
        assert found & LAYOUTS.keys() == {layout}
        assert all(map(torch.equal, run_program(program, (IDS,)), expected))


def test_packing_says_why(packed: PackedProgram) -> None:
    said = {note.node: note.text for note in packed.notes if note.pass_name == "pack_weights"}
    assert said == {name: density.reason for name, density in BOTH.items()}


def test_weights_of_one_layout_have_it_in_their_names(tiny: Program) -> None:
    program = PackWeights(densities(tiny, SPEC))(tiny)
    ternary = [c.name for c in program.constants.values() if c.role == "ternary"]
    assert ternary
    assert all(name.endswith("@tile16_2bit") for name in ternary)


# --- memory --------------------------------------------------------------------------------------


def test_values_that_share_a_stage_do_not_share_storage(programs: dict[str, Program]) -> None:
    program = programs["plan_memory"]
    assert isinstance(program, PlannedProgram)
    (loop,) = (step for step in program.body if isinstance(step, Loop))
    same = dict.fromkeys((*loop.carried[0], *loop.updates, *loop.results), loop.carried[0][0])
    for stage in program.stages():
        names = {n for node in stage.nodes for n in (*node.inputs, *node.outputs) if n}
        spans = {}
        for name in names & program.storage.keys():
            storage = program.storage[name]
            stop = storage.offset + storage.stride
            assert storage.stride >= row_stride(program.values[name])
            spans[same.get(name, name)] = (storage.arena, storage.offset, stop)
            assert stop <= program.arenas[storage.arena]
        held = list(spans.values())
        for i, (arena, start, stop) in enumerate(held):
            for other, first, last in held[:i]:
                assert arena != other or stop <= first or last <= start
