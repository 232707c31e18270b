"""Comparing a compiled form with its module: both run in torch on the same inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmfree_compiler.checking.cases import Case, cases_like, cases_of_ids
from mmfree_compiler.checking.compare import difference, largest
from mmfree_compiler.checking.programs import run_cases, run_program
from mmfree_compiler.checking.rounding import Following, Rounding
from mmfree_compiler.checking.runs import Run, call, run_module
from mmfree_compiler.errors import MmfreeError
from mmfree_compiler.passes import Observer
from mmfree_compiler.program import Node, Program

__all__ = ["CHECKS", "Case", "Check", "Checker", "cases_like", "cases_of_ids", "run_program"]

# "module" compares the final Program with the module; "passes" also compares after every pass.
Check = Literal["module", "passes", False]
CHECKS: tuple[Check, ...] = ("module", "passes", False)
_HINT = {
    "pass": "This is a bug in the pass; MMFREE_DEBUG=2 prints its result",
    "final": 'check="passes" finds the pass that does it; fallback="eager" runs it in torch',
}


@dataclass(frozen=True)
class Checker:
    """Compares compiled forms of a module with the module itself, in inference mode.

    `tell` is called with the largest difference of each form (compare.largest).
    """

    module: nn.Module = field(repr=False)
    cases: tuple[Case, ...] = field(repr=False)
    check: Check
    tell: Callable[[float], None] = field(default=lambda _: None, repr=False)

    @classmethod
    def of(cls, module: nn.Module, examples: tuple[Tensor, ...], check: Check) -> Checker:
        """For the examples and inputs like them."""
        return cls(module, tuple(cases_like(module, examples)), check)

    @property
    def observers(self) -> tuple[Observer, ...]:
        """What is to look at every pass."""
        return (self._observe,) if self.check == "passes" else ()

    def final(self, made: Any) -> None:
        """Raise MmfreeError if the outputs of `made`, a Program or a function, differ."""
        if self.check:
            self._compare(made, "the compiled model", _HINT["final"])

    def _observe(self, name: str, subject: Any, seconds: float) -> None:  # noqa: ARG002
        self._compare(subject, f"pass {name}", _HINT["pass"])

    @cached_property
    def _runs(self) -> tuple[Run, ...]:
        """The module's own; not before they are needed, since tracing must come first."""
        return tuple(run_module(self.module, self.cases))

    @torch.no_grad()
    def _compare(self, made: Any, thing: str, hint: str) -> None:
        for run in self._runs:
            run.recorded.last = -1
        if isinstance(made, Program):
            found, where = self._program_outputs(made)
        else:
            found, where = [self._outputs(made, run) for run in self._runs], ""
        for run, outputs in zip(self._runs, found, strict=True):
            _refuse(run, outputs, thing, where, hint)
        self.tell(max(map(largest, found, (run.outputs for run in self._runs))))

    def _outputs(self, made: Callable[..., Any], run: Run) -> list[Tensor]:
        with Rounding(Following([run.recorded], lambda: None).round):
            return call(made, run.case)

    def _program_outputs(self, program: Program) -> tuple[list[list[Tensor]], str]:
        """Those of all cases, and which codes differ first; one batch unpacks weights once."""
        nodes: list[Node] = []
        other: list[Node] = []  # those that made codes that the module does not have
        recorded = [run.recorded for run in self._runs]
        with Rounding(Following(recorded, lambda: other.append(nodes[-1])).round):
            outputs = run_cases(program, [run.case for run in self._runs], nodes.append)
        return outputs, f"; the codes of {_place(other[0])} differ first" if other else ""


def _place(node: Node) -> str:
    return f"{node.op} at {node.source}" if node.source else node.op


def _refuse(run: Run, found: list[Tensor], thing: str, where: str, hint: str) -> None:
    """Raise MmfreeError when the outputs of a case differ."""
    differs = difference(run.case, found, run.outputs)
    if differs:
        raise MmfreeError(thing, f"{differs}{where}", hint)
