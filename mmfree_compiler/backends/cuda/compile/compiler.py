"""CUDA compiler: Triton kernels, generated for the stages of a Program, as cubins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from mmfree_compiler.artifact import WEIGHTS, Artifact, Build, TensorEntry, pack_constants
from mmfree_compiler.backends.copy_rows import CopyRows
from mmfree_compiler.backends.cuda.compile import tuning
from mmfree_compiler.backends.cuda.compile.build import compiled
from mmfree_compiler.backends.cuda.compile.kernel import Source
from mmfree_compiler.backends.cuda.compile.passes.finish_outputs import FinishOutputs
from mmfree_compiler.backends.cuda.compile.passes.pack_weights import PackWeights
from mmfree_compiler.backends.cuda.compile.passes.peel_last import PeelLast
from mmfree_compiler.backends.cuda.compile.passes.plan_scratch import PlanScratch
from mmfree_compiler.backends.cuda.compile.planned import PlannedProgram
from mmfree_compiler.backends.cuda.compile.rows import ROWS
from mmfree_compiler.backends.cuda.compile.sampling import sampling
from mmfree_compiler.backends.cuda.compile.schedule import Part, Run, inner_values, schedule
from mmfree_compiler.backends.cuda.compile.shapes import PLANS, PlanShape
from mmfree_compiler.backends.cuda.compile.sources import Sources
from mmfree_compiler.backends.cuda.compile.tiles import TILES
from mmfree_compiler.backends.cuda.facts import ABI, CODE, Facts, Launch, Plan, Repeat
from mmfree_compiler.backends.cuda.spec import Spec
from mmfree_compiler.backends.explained import Profile
from mmfree_compiler.backends.interface import Emitted, ProgramPass, Settings
from mmfree_compiler.program import Program


class CudaCompiler:
    """See interface.Compiler."""

    ops = frozenset(ROWS) | frozenset(TILES)

    def passes(self, program: Program, spec: Spec) -> tuple[ProgramPass, ...]:  # noqa: ARG002 - the interface
        return CopyRows(), FinishOutputs(), PackWeights(), PeelLast(), PlanScratch()

    def emit(self, program: Program, spec: Spec) -> Emitted:
        assert isinstance(program, PlannedProgram)
        weights, tensors = pack_constants(program.constants.values())
        settings = {arch: tuning.find(program, arch) for arch in spec.archs}
        builds, code = _built(program, tensors, settings)
        return Emitted(builds, tensors, {WEIGHTS: weights, **code})

    def profile(self, artifact: Artifact, threads: int | None) -> Profile:  # noqa: ARG002 - the interface
        """See explained.Profiler: on this machine's first GPU."""
        from mmfree_compiler.backends.cuda.compile.profile import profile

        return profile(artifact)

    def candidates(self, spec: Spec) -> Mapping[str, tuple[int, ...]]:
        (arch,) = spec.archs
        return tuning.candidates(arch)

    def defaults(self, spec: Spec) -> Settings:
        (arch,) = spec.archs
        return tuning.defaults(arch)

    def retuned(self, artifact: Artifact, spec: Spec, settings: Settings) -> Artifact:
        program, (arch,) = artifact.program, spec.archs
        assert isinstance(program, PlannedProgram)
        builds, code = _built(program, artifact.entry.tensors, {arch: settings})
        return artifact.rebuilt(code, {"builds": builds})

    def keep(self, program: Program, spec: Spec, settings: Settings) -> None:
        (arch,) = spec.archs
        tuning.keep(program, arch, settings)


def _built(
    program: PlannedProgram,
    tensors: Mapping[str, TensorEntry],
    settings: Mapping[str, Settings],
) -> tuple[tuple[Build, ...], dict[str, bytes]]:
    """The builds of architectures with their settings, and the members of their kernels."""
    groups: dict[tuple[PlanShape, ...], list[str]] = {}
    for arch, own in settings.items():
        groups.setdefault(tuning.plans(PLANS, arch, own), []).append(arch)
    builds, code = {}, {}
    choosing = sampling(program)
    launches = [_launch(source) for source in choosing]
    for shapes, archs in groups.items():
        kernels, plans = planned(program, tensors, shapes)
        for arch, (cubins, places) in compiled([*kernels, *choosing], archs).items():
            facts = Facts(
                arch=arch,
                chunk=program.chunk,
                scratch=program.scratch,
                output_start=program.output_start,
                kernels=places,
                plans=plans,
                sampling=launches,
            )
            builds[arch] = _build(facts)
            code[_member(arch)] = cubins
    return tuple(builds[arch] for arch in settings), code


def planned(
    program: PlannedProgram,
    tensors: Mapping[str, TensorEntry],
    shapes: Iterable[PlanShape] = PLANS,
) -> tuple[list[Source], list[Plan]]:
    """The kernels of all plans, each once, and the plans."""
    sources = Sources(program, tensors, inner_values(program))
    kernels: dict[str, Source] = {}
    plans = []
    for shape in (shape for shape in shapes if shape.tokens <= program.chunk):
        runs = schedule(program, shape.together, shape.fused)
        steps = [_repeat(sources, run, shape, kernels) for run in runs]
        plans.append(Plan(tokens=shape.tokens, together=shape.together, steps=steps))
    return list(kernels.values()), plans


def _repeat(sources: Sources, run: Run, shape: PlanShape, kernels: dict[str, Source]) -> Repeat:
    launches = [_from(each, run.first) for each in _launches(sources, run.parts, shape, kernels)]
    return Repeat(count=run.count, launches=launches)


def _from(launch: Launch, first: int) -> Launch:
    """A launch of the same kernel, in the iteration with the number `first`."""
    moved = [
        each.model_copy(update={"offset": each.offset + first * each.stride})
        for each in launch.arguments
    ]
    return launch.model_copy(update={"arguments": moved})


def _launches(
    sources: Sources, parts: Iterable[Part], shape: PlanShape, kernels: dict[str, Source]
) -> Iterator[Launch]:
    for part in parts:
        source = sources.write(part, shape)
        assert kernels.setdefault(source.name, source) == source
        yield _launch(source)


def _launch(source: Source) -> Launch:
    return Launch(
        kernel=source.name,
        columns=source.columns,
        over=source.over,
        per=source.per,
        arguments=list(source.arguments),
    )


def _member(arch: str) -> str:
    return f"kernels/{arch}.cubins"


def _build(facts: Facts) -> Build:
    members = {CODE: _member(facts.arch)}
    return Build(name=facts.arch, abi=ABI, members=members, facts=facts.model_dump())
