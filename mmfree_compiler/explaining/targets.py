"""What was made for one target: sizes, the Program as it is read there, and measured times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import prod

from mmfree_compiler import backends
from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.explained import (
    BuildFacts,
    Explained,
    Gauge,
    Profile,
    Profiler,
    Rates,
)
from mmfree_compiler.backends.explained import Table as Facts
from mmfree_compiler.backends.interface import Backend
from mmfree_compiler.contents import other_tensors, ternary_tensors
from mmfree_compiler.errors import TargetError, ToolchainError
from mmfree_compiler.explaining.drawn import ProgramGraph
from mmfree_compiler.explaining.nodes import program_graph
from mmfree_compiler.explaining.schema import Ceilings, Table, TargetPart
from mmfree_compiler.explaining.times import step_roofline_us, timed
from mmfree_compiler.notes import Note
from mmfree_compiler.program import Program

_NOT_ASKED = "not measured: pass measure=True, or run mmfree explain"
_NO_PROFILER = "this target cannot measure its ops"
_NO_PROGRAM = "ops are measured where the model is compiled: explain its checkpoint"


def target_part(artifact: Artifact, threads: int | None, measure: bool) -> TargetPart:
    """What `artifact` has for the target that it is seen as."""
    entry = artifact.entry
    part = TargetPart(
        target=entry.target, builds=tuple(build.name for build in entry.builds), runs_here=""
    )
    try:
        backend = backends.get(entry.kind)
    except (TargetError, ToolchainError) as error:  # of another package, or of a newer version
        return part.model_copy(update={"missing": (str(error),)})
    found = _described(backend, artifact, threads, measure)
    return part.model_copy(update=found)


def _described(
    backend: Backend, artifact: Artifact, threads: int | None, measure: bool
) -> dict[str, object]:
    profile, why = _profile(backend, artifact, threads, measure)
    facts = backend.explained(artifact) if isinstance(backend, Explained) else BuildFacts()
    program = facts.program or artifact.program
    rates, unknown = _rates(profile, facts, program)
    ceilings = _ceilings(rates)
    graph = program_graph(program, _notes(artifact)) if program else None
    return {
        **_sizes(artifact, graph),
        "runs_here": facts.chosen,
        "program": timed(graph, profile, ceilings, why) if graph else None,
        "memory": _table(facts.memory),
        "kernels": _table(facts.kernels),
        "ceilings": ceilings,
        "roofline_us": step_roofline_us(graph, ceilings) if graph else None,
        **_step(profile),
        "missing": tuple(filter(None, (why and f"times: {why}", unknown))),
    }


def _step(profile: Profile | None) -> dict[str, object]:
    """What is known of a whole decode step."""
    if profile is None:
        return {}
    return {
        "how": profile.how,
        "overlapping": profile.overlapping,
        "decode_us": 1e6 * profile.decode,
        "others_us": {what: 1e6 * seconds for what, seconds in profile.others.items()},
        "threads": profile.threads,
    }


def _profile(
    backend: Backend, artifact: Artifact, threads: int | None, measure: bool
) -> tuple[Profile | None, str]:
    """The measured times, or why there are none."""
    if not measure:
        return None, _NOT_ASKED
    if artifact.program is None:
        return None, _NO_PROGRAM
    try:
        compiler = backends.compiler(backend)
        if not isinstance(compiler, Profiler):
            return None, _NO_PROFILER
        return compiler.profile(artifact, threads), ""
    except (TargetError, ToolchainError) as error:
        return None, f"not measured: {error}"


def _rates(
    profile: Profile | None, facts: BuildFacts, program: Program | None
) -> tuple[Rates | None, str]:
    """What bounds the machine that the times are of, or why it is not known."""
    if profile is None or profile.rates or facts.rates or program is None:
        return (profile and profile.rates) or facts.rates, ""
    nbytes = sum(
        part.nbytes
        for constant in program.constants.values()
        for part in constant.parts
        if constant.role == "ternary"
    )
    return _gauged(nbytes, profile.threads or 1)


def _gauged(nbytes: int, threads: int) -> tuple[Rates | None, str]:
    """Those of this machine's CPUs, by the first target that measures them, or why none does."""
    why = "no installed target measures them"
    for kind in backends.kinds():
        try:
            compiler = backends.compiler(backends.get(kind))
            if isinstance(compiler, Gauge):
                return compiler.gauge(nbytes, threads), ""
        except (TargetError, ToolchainError) as error:
            why = str(error)
    return None, f"ceilings: {why}"


def _notes(artifact: Artifact) -> Iterator[Note]:
    """Those of the passes of all targets, and of this one."""
    return (Note(*note) for note in (*artifact.manifest.notes, *artifact.entry.notes))


def _sizes(artifact: Artifact, graph: ProgramGraph | None) -> dict[str, object]:
    """Bytes of the constants that are read; without a Program, of those in the smallest layout."""
    if graph:
        sizes = [
            (use.role, use.nbytes, prod(use.shape) * use.parts)
            for node in graph.nodes
            for use in node.constants
            if node.kind == "constant"
        ]
    else:
        tensors = (*ternary_tensors(artifact.entry), *other_tensors(artifact.entry))
        sizes = [(tensor.role, tensor.nbytes, tensor.elements) for tensor in tensors]
    nbytes, elements = Counter[str](), Counter[str]()
    for role, size, count in sizes:
        nbytes[role] += size
        elements[role] += count
    ternary = nbytes["ternary"]
    return {
        "weight_bytes": ternary,
        "embedding_bytes": nbytes["table"],
        "other_bytes": nbytes["row"] + nbytes["taps"],
        "bits_per_weight": 8 * ternary / elements["ternary"] if ternary else None,
    }


def _table(facts: Facts) -> Table:
    return {name: dict(row) for name, row in facts.items()}


def _ceilings(rates: Rates | None) -> Ceilings | None:
    if rates is None:
        return None
    return Ceilings(
        how=rates.how,
        bytes_per_second=rates.nbytes,
        integer_operations_per_second=rates.integers,
        float_operations_per_second=rates.floats,
    )
