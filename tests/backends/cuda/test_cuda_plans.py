"""Which plan a call takes, and how much of it is launched."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from interpreted import InterpretedExecutor

from mmfree_compiler.backends.cuda.compile.shapes import PLANS
from mmfree_compiler.backends.cuda.facts import Kernel, Launch, Over, Plan, Repeat
from mmfree_compiler.backends.cuda.run.calls import Call
from mmfree_compiler.backends.cuda.run.plans import Places, Runner
from mmfree_compiler.backends.cuda.strides import CHUNK, OUTPUTS


@pytest.mark.parametrize(
    ("sequences", "tokens", "expected"),
    [
        (1, 1, (1, False)),
        (9, 1, (16, False)),
        (OUTPUTS, 1, (OUTPUTS, False)),
        (OUTPUTS + 1, 1, (512, True)),
        (1, 2, (16, True)),
        (3, 20, (64, True)),
        (1, 200, (256, True)),
        (1, 257, (512, True)),
        (1, 513, (CHUNK // 2, True)),
        (1, CHUNK, (CHUNK, True)),
    ],
)
def test_the_plan_of_a_call(sequences: int, tokens: int, expected: tuple[int, bool]) -> None:
    rows = np.repeat(np.arange(sequences, dtype=np.int32), tokens)
    call = Call((), rows, rows, rows[:0])
    plans = [Plan(tokens=plan.tokens, together=plan.together, steps=[]) for plan in PLANS]
    found = next(plan for plan in plans if call.fits(plan))
    assert (found.tokens, found.together) == expected


class Grids:
    """A kernel that keeps the grids of its launches."""

    def __init__(self) -> None:
        self.found: list[tuple[int, int]] = []

    def __getitem__(self, grid: tuple[int, int]) -> Any:
        self.found.append(grid)
        return lambda: None


@pytest.mark.parametrize(("tokens", "blocks"), [(1, 1), (64, 1), (65, 2), (300, 8), (700, 11)])
def test_programs_are_launched_for_a_power_of_two_of_tokens(tokens: int, blocks: int) -> None:
    """At most for those of the plan."""
    module = ModuleType("kernels")
    module.kernel = grids = Grids()  # type: ignore[attr-defined]  # as kernels are in such a module
    executor = InterpretedExecutor(module)
    sizes: dict[str, Any] = {"offset": 0, "size": 1, "warps": 1, "shared": 0, "dependent": False}
    executor.load(np.zeros(0, np.uint8), {"kernel": Kernel(symbol="", parameters=[], **sizes)})
    launch = Launch(kernel="kernel", columns=3, over="tokens", per=64, arguments=[])
    plan = Plan(tokens=700, together=True, steps=[Repeat(count=2, launches=[launch])])
    counts: dict[Over, int] = {"tokens": tokens, "wanted": 1, "sequences": 1}
    Runner(executor, plan, Places({}, {}))(counts)
    assert grids.found == [(3, blocks)] * 2
