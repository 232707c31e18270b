"""Parts of stages, and the stages that only wanted tokens need."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from op_modules import Block, TinyLM, mm
from torch import Tensor, nn

import mmfree_compiler as mmf
from mmfree_compiler.artifact import pack_constants
from mmfree_compiler.backends.cuda.compile import tuning
from mmfree_compiler.backends.cuda.compile.compiler import planned
from mmfree_compiler.backends.cuda.compile.kernel import WAIT, Source
from mmfree_compiler.backends.cuda.compile.planned import PlannedProgram
from mmfree_compiler.backends.cuda.compile.sampling import sampling
from mmfree_compiler.backends.cuda.compile.schedule import Part, inner_values, schedule
from mmfree_compiler.backends.cuda.compile.shapes import PLANS, PlanShape, Shape, Sizes
from mmfree_compiler.backends.cuda.facts import Plan
from mmfree_compiler.backends.cuda.spec import Spec
from mmfree_compiler.program import Loop, Program


def program_of(module: nn.Module, *inputs: Tensor) -> PlannedProgram:
    """After the passes of the target; nothing is compiled."""
    program = mmf.compile(module, "reference", example_inputs=inputs, check=False).artifact.program
    assert program is not None
    return planned_of(program)


def planned_of(program: Program) -> PlannedProgram:
    """The same of a Program."""
    for step in mmf.backends.get("cuda").compiler().passes(program, Spec(("sm_90",))):
        program = step(program)
    assert isinstance(program, PlannedProgram)
    return program


def parts(program: PlannedProgram, together: bool) -> list[Part]:
    return [part for run in schedule(program, together) for part in run.parts]


def parts_of_one_token(program: PlannedProgram) -> list[Part]:
    return [part for run in schedule(program, False, fused=True) for part in run.parts]


@pytest.fixture(scope="module")
def model() -> PlannedProgram:
    return program_of(TinyLM(L=2), torch.zeros(2, 3, dtype=torch.int64))


def test_a_layer_is_rows_and_tiles_of_four_stages(model: PlannedProgram) -> None:
    runs = schedule(model, together=False)
    assert [run.count for run in runs] == [1, 2, 1]
    assert [part.kind for part in runs[1].parts] == ["rows", "tiles"] * 4


def test_several_tokens_of_a_sequence_have_a_scan(model: PlannedProgram) -> None:
    kinds = [part.kind for part in schedule(model, together=True)[1].parts]
    assert kinds == ["rows", "tiles", "scan", "tiles", *["rows", "tiles"] * 3]
    scan = next(part for part in parts(model, together=True) if part.kind == "scan")
    assert [node.op for node in scan.nodes] == ["mlgru_scan"]


def test_what_a_recurrence_does_not_need_runs_beside_it(model: PlannedProgram) -> None:
    """The product of the output gate: it reads neither what the scan makes nor what it reads."""
    run = schedule(model, together=True)[1]
    (beside,) = (k for k, part in enumerate(run.parts) if part.beside)
    scan, part = run.parts[beside - 1 : beside + 1]
    assert scan.kind == "scan"
    assert [node.op for node in part.nodes] == ["ternary_linear"]
    assert not part.read & scan.made
    assert not part.made & (scan.read | scan.made)
    assert not any(part.beside for part in parts(model, together=False))


def test_the_head_is_for_wanted_tokens(model: PlannedProgram) -> None:
    wanted = [part for part in parts(model, together=False) if part.wanted]
    assert [part.kind for part in wanted] == ["rows", "tiles"]
    assert set(model.outputs) <= inner_values(model)


def test_of_a_prompt_so_is_what_follows_the_last_recurrence(model: PlannedProgram) -> None:
    """The last iteration is apart; what is needed of all tokens runs the same kernels."""
    _, layers, recurrence, behind, head = schedule(model, together=True)
    (loop,) = (step for step in model.body if isinstance(step, Loop))
    assert [layers.first, recurrence.first, behind.first] == [0, loop.count - 1, loop.count - 1]
    assert [layers.count, recurrence.count, behind.count] == [loop.count - 1, 1, 1]
    assert recurrence.parts == layers.parts[: len(recurrence.parts)]
    assert recurrence.parts[-1].beside
    assert not any(part.wanted for part in (*recurrence.parts, *layers.parts))
    assert all(part.wanted for part in (*behind.parts, *head.parts))
    rest = layers.parts[len(recurrence.parts) :]
    assert [part.kind for part in behind.parts] == [part.kind for part in rest]
    assert not {part.name for part in behind.parts} & {part.name for part in rest}


def test_of_a_module_all_is_wanted() -> None:
    """Of tokens of a module that is not a language model, callers see all."""
    generator = torch.Generator().manual_seed(0)
    layers = nn.Sequential(*(Block(24, 40, 20, generator) for _ in range(2)))
    program = program_of(layers, torch.randn(2, 3, 24))
    assert any(isinstance(step, Loop) for step in program.body)
    assert program.together == program.body


class _Ends(nn.Module):
    """What it returns needs a state."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = mm.mlgru_scan(x, x)
        return out


def test_an_output_that_needs_a_state_is_copied() -> None:
    program = program_of(_Ends(), torch.randn(2, 3, 8))
    *others, last = parts(program, together=True)
    assert [node.op for node in last.nodes] == ["identity"]
    assert last.wanted
    assert not any(part.wanted for part in others)


def test_what_is_carried_shares_its_rows(model: PlannedProgram) -> None:
    (loop,) = (step for step in model.body if isinstance(step, Loop))
    names = {*loop.updates, *loop.results, *(name for pair in loop.carried for name in pair)}
    assert len(names) > 2
    assert len({model.places[name] for name in names}) == 1


def planned_for(model: PlannedProgram, arch: str) -> tuple[list[Source], list[Plan]]:
    """The kernels of all plans, and these."""
    _, tensors = pack_constants(model.constants.values())
    return planned(model, tensors, tuning.plans(PLANS, arch, tuning.defaults(arch)))


EARLY = {"weights", "counts", "wanted", "starts", "slots", "targets"}


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_every_kernel_waits_for_the_one_in_front(model: PlannedProgram, arch: str) -> None:
    """Before it reads what kernels of the same call write: from Hopper on, launches do not wait."""
    kernels, plans = planned_for(model, arch)
    first = {plan.steps[0].launches[0].kernel for plan in plans}
    for source in (*kernels, *sampling(model)):
        if "beside" in source.name and source.language == "gluon":
            continue  # it waits at its end: the next test
        names = re.findall(r"v_\w+", source.text.partition("(")[2].partition(")")[0])
        before, found, _ = source.text.partition(f"    {WAIT}\n")
        assert found, source.name
        allowed = EARLY if source.name in first else EARLY | {"states"}
        read = {name for name in names if re.search(rf"load\(\(?{name}\b", before)}
        late = {
            argument.space
            for name, argument in zip(names, source.arguments, strict=True)
            if name in read
        } - allowed
        assert not late, source.name


def test_what_is_beside_another_waits_for_it_at_its_end(model: PlannedProgram) -> None:
    """One program: were it all of them, those that run would crowd out the others."""
    kernels, _ = planned_for(model, "sm_90")
    found = [source for source in kernels if "beside" in source.name]
    assert {source.language for source in found} == {"gluon"}
    last = f"    if tl.program_id(0) + tl.program_id(1) == 0:\n        {WAIT}\n"
    assert all(source.text.endswith(last) for source in found)
    assert all(source.text.count(WAIT) == 1 for source in found)


def test_golden_kernels(model: PlannedProgram, golden: Callable[[str, str], None]) -> None:
    """Of all plans, the first kernel for each part of the model: rows, tiles, scans, fused."""
    kernels, _ = planned_for(model, "sm_80")
    parts = {source.name.rpartition("_")[0]: source.text for source in reversed(kernels)}
    golden("kernels", "\n".join(reversed(parts.values())))


def test_golden_kernels_of_hopper(
    model: PlannedProgram, golden: Callable[[str, str], None]
) -> None:
    """Tiles of products: of few tokens, and of many, of which pieces are made one by one."""
    _, tensors = pack_constants(model.constants.values())
    texts = []
    for tokens in (16, 64):
        sizes = Sizes(gemm=(Shape(tokens, 64, 4, "wgmma"),))
        kernels, _ = planned(model, tensors, [PlanShape(tokens, together=tokens > 16, sizes=sizes)])
        texts += [source.text for source in kernels if "wgmma" in source.text]
    golden("hopper", "\n".join(texts))
