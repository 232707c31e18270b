"""The whole flow on one screen: model -> graph -> Program -> Artifact -> something to call."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, overload

import torch
from torch import Tensor, fx, nn

from mmfree_compiler import backends, explain, notes, passes
from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends import Backend, Density, Details
from mmfree_compiler.errors import ArtifactError, CheckpointError, InputError, TargetError
from mmfree_compiler.fallback import EagerModel, eager_model
from mmfree_compiler.models import MLGRU, MatMulFreeLM, load_checkpoint
from mmfree_compiler.program import Program
from mmfree_compiler.runtime import Session
from mmfree_compiler.runtime.launcher import Launcher
from mmfree_compiler.runtime.threads import resolve_threads
from mmfree_compiler.runtime.tokenizer import Tokenizer
from mmfree_compiler.target import Target
from mmfree_compiler.trace import trace

Model = str | os.PathLike[str] | nn.Module

QUANTIZATION = {
    "weights": "ternary, one scale a tensor: s = 1 / max(mean|w|, 1e-5), round half to even",
    "activations": "int8, one scale a token: 127 / max(max|x|, 1e-5), round half to even",
}


@dataclass(frozen=True)
class CompiledModel:
    """A compiled model, ready to run in this process.

    Calling it is calling its `session` (see runtime.Session): `logits, state = compiled(tokens)`,
    or tensors in, tensors out for a module that is no language model.
    """

    artifact: Artifact = field(repr=False)
    program: Program = field(repr=False)
    threads: int
    launcher: Launcher | None = None  # of a target that runs in this process only

    @cached_property
    def session(self) -> Session:
        """Made when first used: a model may be compiled for another machine."""
        return Session(self.artifact, self.threads, launcher=self.launcher)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.session(*args, **kwargs)

    def generate(self, prompt: Any, **settings: Any) -> Iterator[Any]:
        """Stream tokens; see runtime.Session.generate."""
        return self.session.generate(prompt, **settings)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write model.mmfree. Raises TargetError when the target exists in this process only."""
        check_savable(Target.parse(self.artifact.manifest.target))
        self.artifact.save(path)

    def explain(self) -> str:
        """What each pass did, as a table."""
        return notes.text(notes.Note(*note) for note in self.artifact.manifest.notes)


def check_savable(target: Target) -> None:
    """Raise TargetError when what is compiled for `target` exists in this process only."""
    if backends.get(target.kind).launcher is not None:
        cause = "runs in the process that compiled it and cannot be saved"
        raise TargetError(f"target {target}", cause, 'Compile for target "cpu"')


class Options(TypedDict, total=False):
    """Keyword arguments of `compile` that do not change what it returns."""

    example_inputs: tuple[Tensor, ...] | None
    threads: int | None
    check: bool
    observers: Iterable[passes.Observer]
    density: Density


@overload
def compile(  # noqa: A001 - the name the users know
    model: Model,
    target: str | Target = "cpu",
    *,
    fallback: Literal["error"] = "error",
    **options: Unpack[Options],
) -> CompiledModel: ...
@overload
def compile(  # noqa: A001
    model: Model,
    target: str | Target = "cpu",
    *,
    fallback: Literal["eager"],
    **options: Unpack[Options],
) -> EagerModel: ...
def compile(  # noqa: A001
    model: Model,
    target: str | Target = "cpu",
    *,
    example_inputs: tuple[Tensor, ...] | None = None,
    fallback: Literal["error", "eager"] = "error",
    threads: int | None = None,
    check: bool = False,
    observers: Iterable[passes.Observer] = (),
    density: Density = "auto",
) -> CompiledModel | EagerModel:
    """Compile a checkpoint folder, a MatMulFreeLM, or any module of BitLinears for `target`.

    `example_inputs` are needed for modules that are no language model; leading dimensions become
    dynamic. `fallback="eager"` runs what the target cannot lower in torch; the result then cannot
    be saved. `threads` is for running here (default: the CPUs this process may use). `check`
    compares every pass's graph with the one before, numerically. `observers` see what each pass
    made. `density` is how many bits a ternary weight takes, 1.6 or 2: "auto" chooses by where the
    weights will live, cache or DRAM; `explain()` says which and why.

    Returns a CompiledModel (or, for the eager fallback, a fallback.EagerModel). Raises
    CheckpointError, TraceError, UnsupportedError (all unsupported operations at once), TargetError,
    ToolchainError.
    """
    watching, count = tuple(observers), resolve_threads(threads)
    goal = Target.parse(target)
    backend = backends.get(goal.kind)
    if fallback not in ("error", "eager"):
        raise InputError(f"fallback {fallback!r}", "unknown", 'Known: "error", "eager"')
    module = model if isinstance(model, nn.Module) else load_checkpoint(_folder(model))
    if fallback == "eager":
        graph = _graph(module, example_inputs, check, watching)
        return eager_model(
            graph,
            backend.lowered,
            lambda part: compile_graph(part, backend, goal, count, density=density).session,
        )
    # No name holds the graph here: its weights go as soon as they are packed.
    return compile_graph(
        _graph(module, example_inputs, check, watching),
        backend,
        goal,
        count,
        module,
        watching,
        density,
    )


def _folder(model: object) -> Path:
    if not isinstance(model, (str, os.PathLike)):
        raise InputError(f"model {model!r}", "neither a folder nor an nn.Module", "Pass one")
    return Path(model)


def _graph(
    module: nn.Module,
    example_inputs: tuple[Tensor, ...] | None,
    check: bool,
    observers: tuple[passes.Observer, ...],
) -> fx.GraphModule:
    """Trace and rewrite to mmfree ops."""
    if isinstance(module, MatMulFreeLM):
        example_inputs = (torch.zeros(2, 3, dtype=torch.int64),)
    if isinstance(module, _STATEFUL):
        module = _Stateless(module)
    if not isinstance(example_inputs, tuple | list | None):
        raise InputError("example_inputs", "no tuple of tensors", "Pass example_inputs=(x,)")
    if not example_inputs:
        raise InputError(
            f"module {type(module).__name__}",
            "is no MatMulFreeLM, so its inputs are unknown",
            "Pass example_inputs=(x,)",
        )
    graph = trace(module, example_inputs)
    checks = (passes.NumericCheck(example_inputs),) if check else ()
    return passes.run(passes.GRAPH, graph, (*checks, *observers))


# Modules that return (rows, state).
_STATEFUL = (MatMulFreeLM, MLGRU)


class _Stateless(nn.Module):
    """A stateful module as a function of its rows alone: states come in when it is lowered."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        rows: Tensor = self.module(x)[0]
        return rows


def compile_graph(
    graph: fx.GraphModule,
    backend: Backend,
    target: Target,
    threads: int,
    module: nn.Module | None = None,
    observers: tuple[passes.Observer, ...] = (),
    density: Density = "auto",
) -> CompiledModel:
    """Lower a graph of mmfree ops, optimize the Program, emit and load it."""
    passes.check_supported(graph, backend.lowered)
    program = passes.lower(graph)
    choice = backend.layout(program, target, density)
    explain.notes(graph).append(notes.Note("pack_weights", "weights", choice.reason))
    pipeline = passes.program_passes(choice.layout)
    names = (*(p.name for p in passes.GRAPH), "lower", *(p.name for p in pipeline))
    details = _details(graph, names, module)
    del graph
    gc.collect()  # an fx graph is full of cycles
    program = passes.run(pipeline, program, observers)
    artifact = backend.emit(program, target, details)
    launcher = backend.launcher(program) if backend.launcher else None
    return CompiledModel(artifact, program, threads, launcher)


def _details(graph: fx.GraphModule, names: tuple[str, ...], module: nn.Module | None) -> Details:
    found = tuple((note.pass_name, note.node, note.text) for note in explain.notes(graph))
    model: dict[str, object] = {}
    tokenizer = None
    if isinstance(module, MatMulFreeLM):
        model = module.config.model_dump()
        tokenizer = _tokenizer(module.tokenizer_path) if module.tokenizer_path else None
    return Details(model, QUANTIZATION, names, found, tokenizer)


def _tokenizer(path: Path) -> bytes:
    """tokenizer.json at `path`. Raises CheckpointError when it cannot be read or is none."""
    try:
        text = path.read_bytes()
        if Tokenizer.available():
            Tokenizer(text)
    except ArtifactError as error:
        raise CheckpointError(str(path), error.cause, "Fetch the checkpoint again") from error
    except OSError as error:
        cause = f"cannot be read: {error.strerror or error}"
        raise CheckpointError(str(path), cause, "Check that it is there and readable") from error
    return text
