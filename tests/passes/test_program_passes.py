"""The neutral Program passes: golden text after each, and what each promises."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from op_modules import TinyLM, mm
from torch import Tensor, nn
from zoo import NORMS, QUANTIZERS, THROUGH, WEIGHTS, Proj
from zoo_parts import Gated, Mixer, Tiny

import mmfree_compiler as mmf
from mmfree_compiler import backends, passes
from mmfree_compiler.checking import run_program
from mmfree_compiler.models import BitLinear
from mmfree_compiler.ops import OPS
from mmfree_compiler.passes.group_stages import GroupStages
from mmfree_compiler.passes.roll_layers import RollLayers
from mmfree_compiler.program import Loop, Node, Program, Stage
from mmfree_compiler.program_rules import verify
from mmfree_compiler.program_text import listing
from mmfree_compiler.trace import trace


def lowered(module: nn.Module, *inputs: Tensor) -> Program:
    return passes.lower(passes.run(passes.GRAPH, trace(module, inputs)))


@pytest.fixture(scope="module")
def programs() -> dict[str, Program]:
    """TinyLM's program after `lower` and after each pass."""
    program = lowered(TinyLM(), torch.zeros(2, 3, dtype=torch.int64))
    found = {"lower": program}
    for step in passes.PROGRAM:
        program = step(program)
        found[step.name] = program
    return found


@pytest.mark.parametrize("name", ["lower", *(step.name for step in passes.PROGRAM)])
def test_program_text(
    name: str, programs: dict[str, Program], golden: Callable[[str, str], None]
) -> None:
    golden(f"program_{name}", listing(programs[name]))


def test_a_layer_is_four_stages(programs: dict[str, Program]) -> None:
    (loop,) = (step for step in programs["roll_layers"].body if isinstance(step, Loop))
    assert (loop.count, len(loop.body)) == (3, 4)


def test_rolling_keeps_every_constant_and_state(programs: dict[str, Program]) -> None:
    before, after = programs["group_stages"], programs["roll_layers"]
    parts = [id(part) for c in before.constants.values() for part in c.parts]
    assert sorted(parts) == sorted(id(p) for c in after.constants.values() for p in c.parts)
    assert floats(before) == floats(after) == 3 * 40
    assert [(slot.shape, slot.count) for slot in after.states] == [((40,), 3)]


def floats(program: Program) -> int:
    """Floats of state per sequence."""
    return sum(math.prod(slot.shape) * slot.count for slot in program.states)


def test_passes_leave_notes(programs: dict[str, Program]) -> None:
    notes = [(note.pass_name, note.node, note.text) for note in programs["roll_layers"].notes]
    assert notes[-2:] == [
        ("group_stages", "program", "54 ops in 14 stages"),
        ("roll_layers", "stage 1", "3 iterations of 4 stages"),
    ]
    assert rolled(Chain()).notes[-1].text == "no stages repeat"


def test_notes_of_the_graph_come_first() -> None:
    program = lowered(Mixer(16), torch.zeros(2, 3, 16))
    assert {"detect_mlgru", "ternarize"} <= {note.pass_name for note in program.notes}
    assert GroupStages()(program).notes[:-1] == program.notes


def test_stages_need_no_columns_of_their_own_tiles(programs: dict[str, Program]) -> None:
    for stage in programs["group_stages"].stages():
        made = {name for node in stage.tiles for name in node.outputs}
        assert not any(name in made for node in stage.rows for name in node.inputs)
        assert all(OPS[node.op].kind == "row" for node in stage.rows)


class Chain(nn.Module):
    """Layers whose result is needed again after the next: they must not be rolled in place."""

    def forward(self, x: Tensor) -> Tensor:
        before = x
        for _ in range(4):
            x, before = mm.add(mm.rms_norm(x, torch.ones(16), 1e-6), before), x
        out: Tensor = mm.add(x, before)
        return out


def rolled(module: nn.Module) -> Program:
    return RollLayers()(GroupStages()(lowered(module, torch.zeros(2, 3, 16))))


def test_crossed_carries_stay_unrolled() -> None:
    assert not any(isinstance(step, Loop) for step in rolled(Chain()).body)


class _CalledAsItsState(nn.Module):
    """A convolution, whose value and state have one name, before layers that repeat."""

    def __init__(self) -> None:
        super().__init__()
        self.taps = nn.Parameter(torch.ones(16, 4))
        self.layers = nn.ModuleList(nn.Sequential(BitLinear(16, 16), nn.SiLU()) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = mm.short_conv(x, self.taps, None, None)
        for layer in self.layers:
            x = layer(x)
        return x


def test_a_value_called_as_a_state_is_carried() -> None:
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    module = _CalledAsItsState().eval()
    compiled = mmf.compile(module, "reference", example_inputs=(x,))
    program = compiled.artifact.program
    assert program is not None
    assert [(slot.name, slot.count) for slot in program.states] == [("short_conv", 1)]
    assert any(isinstance(step, Loop) for step in program.body)


class _SharesAConstant(nn.Module):
    """Its first layer is called twice: once before the layers that are rolled."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(BitLinear(24, 24) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers[0](x)
        for layer in self.layers:
            x = layer(x)
        return x


def test_a_constant_in_and_before_a_loop() -> None:
    x = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(0))
    module = _SharesAConstant().eval()
    compiled = mmf.compile(module, "reference", example_inputs=(x,))
    program = compiled.artifact.program
    assert program is not None
    assert any(isinstance(step, Loop) for step in program.body)


def test_a_stage_per_node_is_grouped_again(programs: dict[str, Program]) -> None:
    """Grouping does not depend on how its input was cut."""

    def alone(node: Node) -> Stage:
        return Stage((node,), ()) if OPS[node.op].kind == "row" else Stage((), (node,))

    grouped = programs["group_stages"]
    cut = replace(grouped, body=tuple(alone(node) for node in grouped.nodes()))
    assert GroupStages()(cut).body == grouped.body


# --- random models -------------------------------------------------------------------------------


def projections(choose: random.Random) -> tuple[nn.Module, Tensor]:
    """Layers of random spellings, with an op between them."""
    widths = [choose.randrange(1, 40) for _ in range(choose.randrange(2, 6))]
    layers: list[nn.Module] = []
    for width, out in pairwise(widths):
        norm = choose.choice([*NORMS, None])
        quantizer, weight, through = (
            choose.choice(list(table)) for table in (QUANTIZERS, WEIGHTS, THROUGH)
        )
        bias = choose.random() < 0.5
        layers.append(Proj(width, out, norm, quantizer, weight, through, bias))
        layers.append(choose.choice([nn.SiLU, nn.Tanh, nn.ReLU, nn.Sigmoid])())
    return nn.Sequential(*layers), torch.randn(2, 5, widths[0])


def language_model(choose: random.Random) -> tuple[nn.Module, Tensor]:
    vocabulary, layers = choose.randrange(2, 60), choose.randrange(1, 5)
    model = Tiny(vocabulary, choose.randrange(1, 40), layers)
    return model, torch.randint(vocabulary, (2, 5))


def layers_of(choose: random.Random) -> tuple[nn.Module, Tensor]:
    """Equal layers one after another: a loop that starts from the module's input."""
    width = choose.randrange(1, 40)
    make: Callable[[], nn.Module] = choose.choice(
        [lambda: Mixer(width), lambda: Gated(width, 24), lambda: Proj(width, width)]
    )
    return nn.Sequential(*(make() for _ in range(choose.randrange(1, 5)))), torch.randn(2, 5, width)


@pytest.mark.parametrize("seed", range(6))
def test_random_models_stay_valid_and_the_same(seed: int) -> None:
    """After every pass, those of every backend included."""
    choose = random.Random(seed)
    torch.manual_seed(seed)
    module, x = [projections, language_model, layers_of][seed % 3](choose)
    program = lowered(module.eval(), x)
    (expected,) = run_program(program, (x,))
    for backend, spec in map(backends.of, backends.BUILT_IN):
        made = program
        for step in (*passes.PROGRAM, *backend.compiler().passes(program, spec)):
            made = step(made)
            verify(made, step.name)
            (found,) = run_program(made, (x,))
            # The same ops in another order of stages: not a bit differs.
            assert torch.equal(found, expected), step.name


class _Scaled(nn.Module):
    def __init__(self, gain: Tensor) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain


@pytest.mark.parametrize(
    "gain",
    [
        torch.complex(torch.randn(4), torch.randn(4)).conj().imag,
        torch._neg_view(torch.randn(4)),
        torch.randn(8)[::2],
        torch.randn(1).expand(4),
        torch.randn(4, dtype=torch.float64).float(),
        nn.Parameter(torch.randn(4)),
    ],
    ids=["conjugate", "negated", "every second", "expanded", "converted", "parameter"],
)
def test_a_constant_is_what_torch_reads(gain: Tensor) -> None:
    x = torch._neg_view(torch.randn(2, 3, 4))
    (found,) = run_program(lowered(_Scaled(gain), x), (x,))
    assert torch.equal(found.reshape(2, 3, 4), x * gain)
