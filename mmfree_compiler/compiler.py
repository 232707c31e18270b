"""The whole flow: model -> graph -> Program -> Artifact -> CompiledModel."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Unpack, overload

import torch
from torch import fx, nn

from mmfree_compiler import backends, passes
from mmfree_compiler.artifact import Artifact
from mmfree_compiler.artifact.ranges import ordered
from mmfree_compiler.checking import Checker
from mmfree_compiler.compiled_model import CompiledModel
from mmfree_compiler.errors import InputError, TraceError, UnsupportedError
from mmfree_compiler.explaining import Explanation, History, explain_graph, with_audit
from mmfree_compiler.explaining.audit import audit_run
from mmfree_compiler.fallback import EagerModel, eager_model
from mmfree_compiler.fingerprint import fingerprint
from mmfree_compiler.goals import Goal, Steps
from mmfree_compiler.in_torch import CompiledModule, check_in_torch, compiled_module
from mmfree_compiler.options import Keywords, Options
from mmfree_compiler.packaging import Made, package
from mmfree_compiler.parted import Parted
from mmfree_compiler.parts import cut
from mmfree_compiler.program import Program
from mmfree_compiler.runtime import Session
from mmfree_compiler.sources import Model, Source, check_examples
from mmfree_compiler.target import DEFAULT_TARGET, Target, Targets, parse_targets
from mmfree_compiler.trace import trace


@overload
def compile(  # noqa: A001 - the name the users know
    model: Model,
    target: Targets = DEFAULT_TARGET,
    *,
    fallback: Literal["error"] = "error",
    in_torch: Literal[False] = False,
    **keywords: Unpack[Keywords],
) -> CompiledModel: ...
@overload
def compile(  # noqa: A001
    model: Model,
    target: Targets = DEFAULT_TARGET,
    *,
    fallback: Literal["error"] = "error",
    in_torch: Literal[True],
    **keywords: Unpack[Keywords],
) -> CompiledModule: ...
@overload
def compile(  # noqa: A001
    model: Model,
    target: Targets = DEFAULT_TARGET,
    *,
    fallback: Literal["eager"],
    in_torch: Literal[False] = False,
    **keywords: Unpack[Keywords],
) -> EagerModel: ...
def compile(  # noqa: A001
    model: Model,
    target: Targets = DEFAULT_TARGET,
    *,
    fallback: Literal["error", "eager"] = "error",
    in_torch: bool = False,
    **keywords: Unpack[Keywords],
) -> CompiledModel | CompiledModule | EagerModel:
    """Compile a checkpoint folder, an ONNX model, or any module of BitLinears for `target`.

    Several targets, in a tuple or a list, make one artifact: its sessions run on the first of them
    that the machine has.

    `example_inputs` are required for modules of torch that are not language models; their leading
    dimensions become dynamic. `fallback="eager"` runs in torch what the target does not support,
    the whole module if need be; the result cannot be saved. `check="module"` compares the compiled
    Program with the module, both run in torch on example inputs; `"passes"` also compares after
    every pass; `False` skips the comparison. `observers` are called with the result of each pass.
    `threads` is the number of threads of the result's session. `in_torch` makes a module of torch,
    whose kernels run on torch's tensors on the GPU, in its streams, under torch.compile and in CUDA
    graphs.

    Returns a CompiledModel; for the eager fallback, a fallback.EagerModel; with `in_torch`, an
    in_torch.CompiledModule. Raises CheckpointError, TraceError, UnsupportedError (all unsupported
    operations at once), TargetError, ToolchainError, and MmfreeError when a check fails.
    """
    if fallback not in ("error", "eager"):
        raise InputError(f"fallback {fallback!r}", "is unknown", 'Known: "error", "eager"')
    if not isinstance(in_torch, bool):
        raise InputError("in_torch", f"is {in_torch!r}", "Choose True or False")
    targets = parse_targets(target)
    if in_torch:
        check_in_torch([one.kind for one in targets], fallback)
    flow = _Flow.of(targets, Options.of(keywords, "compile"))
    if fallback == "eager" and len(flow.goals) > 1:
        cause = "are several, and a model with eager parts runs in this process alone"
        raise InputError("targets", cause, "Pass one target")
    source = Source.of(model, flow.options.example_inputs)
    with torch.autocast("cpu", enabled=False):  # a compiled model computes in float32
        if fallback == "eager":
            return eager_model(source, lambda: flow.parted(source), flow.history)
        compiled = flow.compiled(source)
        return compiled_module(compiled.artifact) if in_torch else compiled


def explain(
    model: Model,
    target: Targets = DEFAULT_TARGET,
    *,
    measure: bool = False,
    **keywords: Unpack[Keywords],
) -> Explanation:
    """What `compile` does to a model; a model that it refuses is explained as far as it came.

    The arguments are those of `compile` but for `fallback` and `in_torch`, and of
    CompiledModel.explain. The explanation of a model that cannot be traced or lowered has the
    error as `failed`, and its audit names the products of float matrices. Raises all other errors
    of `compile`.
    """
    flow = _Flow.of(parse_targets(target), Options.of(keywords, "explain"))
    source = Source.of(model, flow.options.example_inputs)
    with torch.autocast("cpu", enabled=False):
        try:
            return flow.compiled(source).explain(measure)
        except (TraceError, UnsupportedError) as error:
            title = type(model).__name__ if isinstance(model, nn.Module) else str(model)
            notes = flow.history.notes
            found = explain_graph(title, "module", flow.history, notes, error)
    if found.audit is None:
        found = with_audit(found, audit_run(source.module, source.traced))
    return found


@dataclass(frozen=True)
class _Flow:
    """The steps from a model's graph to an artifact, for one or more targets."""

    goals: tuple[Goal, ...]
    options: Options
    history: History = field(default_factory=History)

    @classmethod
    def of(cls, targets: tuple[Target, ...], options: Options) -> _Flow:
        taken = {name for target in targets for name in backends.get(target.kind).options}
        if options.threads is not None and "threads" not in taken:
            named = " and ".join(map(str, targets))
            raise InputError("threads", f"target {named} does not take any", "Leave it out")
        return cls(tuple(map(Goal.of, targets)), options)

    @property
    def ops(self) -> frozenset[str]:
        """The names of the ops that every target can lower."""
        return frozenset.intersection(*(goal.compiler.ops for goal in self.goals))

    def tell(self, stage: str, subject: nn.Module | Program) -> None:
        """Say that a stage begins, and what it works on."""
        passes.tell(self.options.observers, stage, subject)

    def compiled(self, source: Source) -> CompiledModel:
        """All steps."""
        check_examples(source.traced)
        graph, checker = self.graph(source)
        steps = (passes.lower, *passes.PROGRAM)
        program = self.program(graph, self.watching("program", steps, checker))
        # The graph's weights are freed before they are packed; it is full of cycles.
        del graph
        gc.collect()
        artifact = self.artifact(program, source, checker)
        return CompiledModel(artifact, self.options.threads, self.history)

    def parted(self, source: Source) -> Parted:
        """The model's graph with compiled parts, checked."""
        graph, checker = self.graph(source)
        parted = cut(graph, self.ops, self._part)
        checker.final(parted)
        return parted

    def _part(self, graph: fx.GraphModule) -> Session:
        return Session(self.artifact(self.program(graph)), self.options.threads)

    def graph(self, source: Source) -> tuple[fx.GraphModule, Checker]:
        """Trace and rewrite to mmfree ops.

        The module itself runs later, in the checker: tracing refuses modules that a call changes.
        """
        self.tell("trace", source.module)
        graph = trace(source.module, source.traced)
        checker = Checker(source.module, source.compared, self.options.check, self.history.compared)
        watching = self.watching("graph", passes.GRAPH, checker)
        graph = passes.run(passes.GRAPH, graph, watching)
        self.history.examine(graph)
        return graph, checker

    def program(self, graph: fx.GraphModule, watching: Iterable[passes.Observer] = ()) -> Program:
        """Lower a graph of mmfree ops and optimize the Program; nothing watches a part."""
        passes.check_supported(graph, self.ops)
        start = time.perf_counter()
        program = passes.lower(graph)
        lowered = passes.lower.__name__, time.perf_counter() - start
        return passes.run(passes.PROGRAM, program, watching, lowered)

    def watching(
        self, stage: str, steps: Iterable[Any], checker: Checker
    ) -> tuple[passes.Observer, ...]:
        """All that look at the passes of a stage; the comparisons belong to the last pass told."""
        noting = self.history.observer(stage, steps)
        return noting, *checker.observers, *self.options.observers

    def artifact(
        self, program: Program, source: Source | None = None, checker: Checker | None = None
    ) -> Artifact:
        """Run each target's passes, check and emit; a part has neither a source nor a checker."""
        model = fingerprint(program)
        steps = [goal.passes(program) for goal in self.goals]
        last = [
            self.finished(program, goal, own, checker)
            for goal, own in zip(self.goals, steps, strict=True)
        ]
        placed = ordered([own.constants for own in last])
        last = [replace(own, constants=named) for own, named in zip(last, placed, strict=True)]
        made = []
        for goal, own, passed in zip(self.goals, last, steps, strict=True):
            if checker:
                self.tell("emit", own)
            emitted = goal.compiler.emit(own, goal.spec)
            made.append(Made(goal.target, own, _names(passed), emitted))
        names = (*_names(passes.GRAPH), "lower", *_names(passes.PROGRAM))
        return package(program, made, names, model, source)

    def finished(
        self, program: Program, goal: Goal, own: Steps, checker: Checker | None
    ) -> Program:
        """The Program after a target's `own` passes, checked."""
        watching = self.watching(str(goal.target), own, checker) if checker else ()
        program = passes.run(own, program, watching)
        if checker:
            self.tell("check", program)
            checker.final(program)
        return program


def _names(steps: Iterable[passes.Pass[Any]]) -> tuple[str, ...]:
    return tuple(step.name for step in steps)
