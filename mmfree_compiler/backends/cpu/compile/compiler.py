"""CPU compiler: TVM TIR -> LLVM, one library per instruction-set variant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from mmfree_compiler.artifact import WEIGHTS, Artifact, Build, pack_constants
from mmfree_compiler.backends.copy_rows import CopyRows
from mmfree_compiler.backends.cpu import BACKEND
from mmfree_compiler.backends.cpu.compile import tuning
from mmfree_compiler.backends.cpu.compile.build import Recipe, libraries
from mmfree_compiler.backends.cpu.compile.codegen import CHUNK
from mmfree_compiler.backends.cpu.compile.density import densities
from mmfree_compiler.backends.cpu.compile.isa import ISAS, tuned
from mmfree_compiler.backends.cpu.compile.kernel import Kernel
from mmfree_compiler.backends.cpu.compile.packed import reading
from mmfree_compiler.backends.cpu.compile.passes.pack_weights import PackWeights
from mmfree_compiler.backends.cpu.compile.passes.plan_memory import PlanMemory
from mmfree_compiler.backends.cpu.compile.planned import PlannedProgram
from mmfree_compiler.backends.cpu.compile.rows import ROWS
from mmfree_compiler.backends.cpu.compile.tiles import TILES
from mmfree_compiler.backends.cpu.compile.tuning import CANDIDATES, Tuning
from mmfree_compiler.backends.cpu.facts import ABI, KERNELS, Facts, MemoryPlan
from mmfree_compiler.backends.cpu.spec import Spec
from mmfree_compiler.backends.cpu.variants import VARIANTS
from mmfree_compiler.backends.explained import Profile, Rates
from mmfree_compiler.backends.interface import Emitted, ProgramPass, Settings
from mmfree_compiler.program import Program


class CpuCompiler:
    """See interface.Compiler."""

    ops = frozenset(ROWS) | frozenset(TILES)

    def passes(self, program: Program, spec: Spec) -> tuple[ProgramPass, ...]:
        return CopyRows(), PackWeights(densities(program, spec)), PlanMemory()

    def emit(self, program: Program, spec: Spec) -> Emitted:
        assert isinstance(program, PlannedProgram)
        weights, tensors = pack_constants(program.constants.values())
        recipes = {name: _recipe(program, name) for name in spec.variants}
        built = libraries(program, tensors, recipes)
        builds = tuple(_build(program, name, recipe) for name, recipe in recipes.items())
        kernels = {_member(name): code for name, code in built.items()}
        return Emitted(builds, tensors, {WEIGHTS: weights, **kernels})

    def profile(self, artifact: Artifact, threads: int | None) -> Profile:
        """See explained.Profiler."""
        from mmfree_compiler.backends.cpu.compile.profile import profile

        return profile(artifact, threads)

    def gauge(self, nbytes: int, threads: int) -> Rates:
        """See explained.Gauge: by the best variant for this machine."""
        from mmfree_compiler.backends.cpu.compile.gauge import PRODUCT, gauge

        spec, program = BACKEND.here(), PRODUCT
        assert isinstance(spec, Spec)
        for step in self.passes(program, spec):
            program = step(program)
        return gauge(program, spec.variants[0], nbytes, threads)

    def candidates(self, spec: Spec) -> Mapping[str, tuple[int, ...]]:
        (variant,) = spec.variants
        names = ("prefetch",) if ISAS[variant].matrices else ("prefetch", "tokens")
        return {name: CANDIDATES[name] for name in names}

    def defaults(self, spec: Spec) -> Settings:
        (variant,) = spec.variants
        return asdict(ISAS[variant].tuning)

    def retuned(self, artifact: Artifact, spec: Spec, settings: Settings) -> Artifact:
        program, (variant,) = artifact.program, spec.variants
        assert isinstance(program, PlannedProgram)
        recipe = Recipe(program.layouts[variant], Tuning(**settings))
        code = libraries(program, artifact.entry.tensors, {variant: recipe})[variant]
        builds = (_build(program, variant, recipe),)
        return artifact.rebuilt({_member(variant): code}, {"builds": builds})

    def keep(self, program: Program, spec: Spec, settings: Settings) -> None:
        (variant,) = spec.variants
        tuning.keep(program, variant, Tuning(**settings))


def _recipe(program: PlannedProgram, variant: str) -> Recipe:
    layout = program.layouts[variant]
    found = tuning.find(reading(program, layout), variant)
    return Recipe(layout, found or ISAS[variant].tuning)


def _member(variant: str) -> str:
    return f"kernels/{variant}.so"


def _build(program: PlannedProgram, variant: str, recipe: Recipe) -> Build:
    isa = tuned(variant, recipe.tuning)
    scratch = Kernel("prefill", reading(program, recipe.layout), isa, CHUNK).scratch_bytes
    facts = Facts(
        arch=VARIANTS[variant].arch,
        features=sorted(VARIANTS[variant].features),
        layout=recipe.layout,
        memory=MemoryPlan(**program.arenas, scratch=scratch, chunk=CHUNK),
        tuning=asdict(recipe.tuning),
    )
    return Build(
        name=variant, abi=ABI, members={KERNELS: _member(variant)}, facts=facts.model_dump()
    )
