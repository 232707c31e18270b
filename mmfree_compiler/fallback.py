"""The eager fallback: what the target supports is compiled, the rest runs in torch."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mmfree_compiler.errors import MmfreeError, TargetError, ToolchainError
from mmfree_compiler.explaining import Explanation, History, explain_graph, with_audit
from mmfree_compiler.explaining.audit import audit_run
from mmfree_compiler.modes import calling
from mmfree_compiler.notes import Note
from mmfree_compiler.parted import Parted
from mmfree_compiler.sources import Source
from mmfree_compiler.wording import described, printable

_LEVEL = 4  # warnings point at the caller of `compile`
_NOT_MEASURED = "times: stages of a model that runs partly in torch are not measured"


@dataclass(frozen=True, eq=False)
class EagerModel:
    """A model that runs partly compiled, partly in torch. It is called like the module.

    There are no gradients, and sequences start from a zero state at each call. `module` itself runs
    where nothing is compiled (`parted` is None), and on inputs of other dtypes or widths than the
    examples that it was compiled for. `eager` names what runs in torch. `examples` are kept where
    nothing is compiled.
    """

    module: nn.Module = field(repr=False)
    parted: Parted | None = field(repr=False)
    eager: tuple[str, ...]
    notes: tuple[Note, ...] = field(repr=False)
    history: History = field(default_factory=History, repr=False)
    examples: tuple[Tensor, ...] = field(default=(), repr=False)

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        if self.parted is not None and not options and self.parted.takes(inputs):
            return self.parted(*inputs)
        with torch.no_grad(), calling(self.module):
            return self.module(*inputs, **options)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Always raises TargetError: parts of the model exist in this process only."""
        raise TargetError(
            str(path),
            f"a model with eager parts cannot be saved: {', '.join(self.eager)} run in torch",
            'Compile with fallback="error" to list them with their source lines',
        )

    def explain(self, measure: bool = False) -> Explanation:
        """What all passes and parts did, and what runs in torch; print() shows it as text.

        Where nothing is compiled, a copy of the module runs on the example inputs, to see what it
        computes. With `measure`, the explanation says that such a model has no measured stages.
        """
        runs = "in torch" if self.parted is None else "partly in torch"
        title = f"{type(self.module).__name__}, {runs}"
        found = explain_graph(title, "eager", self.history, self.notes)
        if measure:
            found = found.model_copy(update={"missing": (_NOT_MEASURED,)})
        if self.parted is not None:
            return found
        return with_audit(found, audit_run(self.module, self.examples))


def eager_model(source: Source, make_parts: Callable[[], Parted], history: History) -> EagerModel:
    """The module with the parts that `make_parts` compiles; all of it in torch if that fails.

    What the compiler refuses, torch may still run: a UserWarning and a note say why. Errors of this
    machine are raised: TargetError, ToolchainError.
    """
    try:
        parted = make_parts()
    except (TargetError, ToolchainError):
        raise
    except Exception as error:  # tracing runs the module's own code, which may raise anything
        return _whole(source, error, history)
    return EagerModel(source.module, parted, parted.eager, parted.notes, history)


def _whole(source: Source, error: Exception, history: History) -> EagerModel:
    module = source.module
    name = type(module).__name__
    why = error.fault if isinstance(error, MmfreeError) else described(error)
    warnings.warn(printable(f"{name} runs in torch as a whole: {why}"), stacklevel=_LEVEL)
    found = (Note("fallback", name, f"in torch as a whole: {why}"),)
    return EagerModel(module, None, (name,), found, history, source.traced)
