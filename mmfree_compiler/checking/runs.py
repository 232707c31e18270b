"""Running the module itself, in inference mode, and keeping what it rounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mmfree_compiler.adapters import adapted
from mmfree_compiler.assumptions.examples import check_runs
from mmfree_compiler.checking.cases import Case
from mmfree_compiler.checking.rounding import Recorded, Rounding
from mmfree_compiler.errors import TraceError
from mmfree_compiler.modes import evaluating
from mmfree_compiler.wording import described


@dataclass(frozen=True)
class Run:
    """What the module returned for a case, and what it rounded on the way."""

    case: Case
    outputs: list[Tensor]
    recorded: Recorded


def call(function: Callable[..., Any], case: Case) -> list[Tensor]:
    """The tensors that it returns for copies of the inputs, since it may write into them."""
    outputs = pytree.tree_leaves(function(*(x.clone() for x in case.inputs)))
    return [x for x in outputs if isinstance(x, Tensor)]


@torch.no_grad()
def run_module(module: nn.Module, cases: tuple[Case, ...]) -> list[Run]:
    """The module's run of each case in inference mode; with adapters if it does not run here.

    Another case than the first has no run where the module raises, since it has no value there.
    Raises InputError when the module does not run on the first.
    """
    with evaluating(module):
        try:
            return _runs(module, cases)
        except Exception:  # a third party's forward may raise anything
            return _adapted_runs(module, cases)


def _adapted_runs(module: nn.Module, cases: tuple[Case, ...]) -> list[Run]:
    try:
        with adapted(module) as plain:
            return _runs(plain, cases)
    except Exception as error:  # a third party's forward may raise anything
        check_runs(module, cases[0].inputs)
        cause = f"fails where its operations are watched, to compare them: {described(error)}"
        raise TraceError(type(module).__name__, cause, "Pass check=False") from error


def _runs(module: nn.Module, cases: tuple[Case, ...]) -> list[Run]:
    first, *others = cases
    return [_run(module, first), *filter(None, (_possible_run(module, case) for case in others))]


def _possible_run(module: nn.Module, case: Case) -> Run | None:
    try:
        return _run(module, case)
    except Exception:  # a third party's forward may raise anything
        return None


def _run(module: nn.Module, case: Case) -> Run:
    recorded = Recorded(case.tokens)
    with Rounding(recorded.round):
        return Run(case, call(module, case), recorded)
