"""Random modules: each is refused, or equals torch on shapes and magnitudes that it never saw."""

from __future__ import annotations

import re
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import mmfree_compiler as mmf
from fuzz.agreement import Agreement, Jitter
from fuzz.generate import Case, generate
from fuzz.report import main
from fuzz.workers import Verdict
from mmfree_compiler.errors import MmfreeError
from mmfree_compiler.runtime import State

COUNT, LIMIT_S = 2000, 240
# The ways in which cases are compiled, in turn; seven, so that workers have as much of each.
ORDER = ("reference",) * 5 + ("cpu", "eager")


def judge(number: int) -> Verdict:
    """Compile the module of that number in one of three ways, and compare it with torch."""
    torch.set_num_threads(1)
    case = generate(number)
    way = ORDER[number % len(ORDER)]
    verdict = _judge(case, way)
    return Verdict(verdict.outcome, verdict.detail, (f"way {way}", *case.features))


def show(number: int) -> str:
    return generate(number).source


def _judge(case: Case, way: str) -> Verdict:
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case.module()(*case.example())
    except Exception as error:
        return Verdict("invalid", f"{type(error).__name__}: {error}")
    try:
        compiled = _WAYS[way](case)
    except MmfreeError as error:
        if way == "eager":
            return Verdict("wrong", f"eager is refused: {error}")
        return Verdict(refusal(case, str(error)), f"{type(error).__name__}: {error}")
    except Exception:
        return Verdict("foreign", traceback.format_exc(limit=-4))
    return _compare(case, compiled)


def refusal(case: Case, message: str) -> str:
    """What a refusal names: a line, or what has none; or it is a check's that blames the compiler.

    Naming nothing is a fault.
    """
    if "bug of the compiler" in message or message.startswith("the compiled model: output"):
        return "caught"
    if f"module {case.number}>" in message:
        return "refused"
    if any(re.search(rf"\b{re.escape(name)}\b", message) for name in _tensors(case.module())):
        return "refused, weight"
    port = re.match(r"output \d+\b|what the module returns|the module: returns|token ids", message)
    return "refused, port" if port else "unclear"


def _tensors(module: nn.Module) -> Iterator[str]:
    """The names of parameters, buffers and plain attributes that are tensors."""
    for path, part in module.named_modules(remove_duplicate=False):
        own = vars(part) | dict(part.named_parameters(recurse=False)) | part._buffers
        names = (name for name, value in own.items() if isinstance(value, Tensor))
        yield from (f"{path}.{name}" if path else name for name in names)


@torch.no_grad()
def _compare(case: Case, compiled: Callable[..., Any]) -> Verdict:
    module, moved = case.module(), case.module()
    agreement = Agreement()
    for k, inputs in enumerate(case.unseen()):
        ours, theirs, jittered = ([x.clone() for x in inputs] for _ in range(3))
        try:
            with Jitter(0) as plain:
                expected = module(*theirs)
            with Jitter() as jitter:
                around = moved(*jittered)
        except Exception:
            continue  # not a shape for this module
        near_edge = plain.near_edge or jitter.near_edge
        try:
            got = compiled(*ours)
        except MmfreeError as error:
            return Verdict("refused in call", f"{type(error).__name__}: {error}")
        except Exception:
            return Verdict("foreign", traceback.format_exc(limit=-4))
        if case.inputs == "tokens" and isinstance(got, tuple) and isinstance(got[-1], State):
            got, expected, around = got[0], *map(_only, (expected, around))
        found = agreement.compare(got, expected, around, near_edge)
        written = agreement.compare(ours, theirs, jittered, near_edge)
        found = found or (written and f"what it wrote into its input: {written}")
        if found:
            return Verdict("wrong", f"unseen input {k}, {tuple(inputs[0].shape)}: {found}")
    return Verdict("equal" if agreement.rows else "nothing compared")


def _only(outputs: Any) -> Any:
    """The one tensor: a language model returns it and a state, whatever the module adds to it."""
    (leaf,) = (leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor))
    return leaf


def _reference(case: Case) -> Callable[..., Any]:
    return mmf.compile(case.module(), "reference", example_inputs=case.example())


def _cpu(case: Case) -> Callable[..., Any]:
    """Compiled for this CPU, saved and loaded."""
    compiled = mmf.compile(case.module(), "cpu", example_inputs=case.example(), threads=1)
    with tempfile.TemporaryDirectory() as folder:
        compiled.save(Path(folder, "model.mmfree"))
        return mmf.load(Path(folder, "model.mmfree"), threads=1)


def _eager(case: Case) -> Callable[..., Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inputs = case.example()
        return mmf.compile(case.module(), "reference", example_inputs=inputs, fallback="eager")


_WAYS = {"reference": _reference, "cpu": _cpu, "eager": _eager}

if __name__ == "__main__":
    main(judge, show, COUNT, LIMIT_S)
