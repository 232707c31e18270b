"""What the FPGA backend tells for `mmfree explain`: memory, programs, and the cycle model."""

from __future__ import annotations

from collections.abc import Mapping

from mmfree_compiler.artifact import Artifact, Build
from mmfree_compiler.backends.explained import BuildFacts, Rates, Table
from mmfree_compiler.backends.fpga.facts import FORWARD, Facts, read_facts
from mmfree_compiler.backends.fpga.isa.word import WORD_BYTES
from mmfree_compiler.backends.fpga.project import project_artifact
from mmfree_compiler.backends.fpga.strides import LINE


def explained(artifact: Artifact) -> BuildFacts:
    """See explained.Explained: of the first build; the simulator runs all."""
    builds = (build for build in artifact.entry.builds if FORWARD in build.members)
    build = next(builds, None)
    if build is None:
        return BuildFacts()
    facts = read_facts(build)
    return BuildFacts(_memory(facts), _kernels(artifact, build), _rates(facts), build.name)


def _memory(facts: Facts) -> Table:
    """The device's memory, and where what the host reads and writes begins."""
    sizes: Table = {
        "weights": {"bytes": LINE * facts.weights},
        "rows and states": {"bytes": LINE * facts.memory},
    }
    return {**sizes, **{name: {"line": line} for name, line in facts.places.items()}}


def _kernels(artifact: Artifact, build: Build) -> Table:
    """The programs; what the cycle model says of a token, and what each unit does meanwhile."""
    projection = project_artifact(artifact)
    programs: Table = {
        f"{role} program": {"instructions": artifact.members[member].size // WORD_BYTES}
        for role, member in build.members.items()
    }
    figures: Table = {
        figure.name: {
            "value": round(figure.value, 3),
            "unit": figure.unit,
            "origin": figure.origin,
        }
        for figure in projection.figures
    }
    units: Table = {f"unit {unit}": _shares(projection.shares(unit)) for unit in projection.units}
    return {**programs, **figures, **units}


def _shares(shares: Mapping[str, float]) -> dict[str, str]:
    return {what: f"{share:.1%}" for what, share in shares.items()}


def _rates(facts: Facts) -> Rates:
    """Those of the board."""
    board, clock = facts.board, facts.board.clock_mhz * 1e6
    return Rates(
        f"{board.title} at {board.clock_mhz:g} MHz",
        nbytes=board.dram.gigabytes_per_second * 1e9 * board.dram.efficiency,
        integers=clock * board.engines * facts.layout.packing.rows * LINE,
        floats=clock * board.vector_lanes,
    )
