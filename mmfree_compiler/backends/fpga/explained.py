"""What the FPGA backend tells for `mmfree explain`: memory, programs, and the cycle model."""

from __future__ import annotations

from collections.abc import Mapping

from mmfree_compiler.artifact import Artifact, Build
from mmfree_compiler.backends.explained import Rates, Table
from mmfree_compiler.backends.fpga.facts import FORWARD, read_facts
from mmfree_compiler.backends.fpga.isa.word import WORD_BYTES
from mmfree_compiler.backends.fpga.project import project_artifact
from mmfree_compiler.backends.fpga.strides import LINE


def memory_plan(artifact: Artifact) -> Table:
    """The device's memory, and where what the host reads and writes begins."""
    build = _build(artifact)
    if build is None:
        return {}
    facts = read_facts(build)
    sizes: Table = {
        "weights": {"bytes": LINE * facts.weights},
        "rows and states": {"bytes": LINE * facts.memory},
    }
    return {**sizes, **{name: {"line": line} for name, line in facts.places.items()}}


def kernel_choices(artifact: Artifact) -> Table:
    """The programs; what the cycle model says of a token, and what each unit does meanwhile."""
    build = _build(artifact)
    if build is None:
        return {}
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


def chosen(artifact: Artifact) -> str:
    """The first build: the simulator runs all."""
    build = _build(artifact)
    return build.name if build else ""


def _build(artifact: Artifact) -> Build | None:
    """The first build with the program that every build has."""
    return next((build for build in artifact.entry.builds if FORWARD in build.members), None)


def _shares(shares: Mapping[str, float]) -> dict[str, str]:
    return {what: f"{share:.1%}" for what, share in shares.items()}


def rates(artifact: Artifact) -> Rates | None:
    """Those of the board."""
    build = _build(artifact)
    if build is None:
        return None
    facts = read_facts(build)
    board, clock = facts.board, facts.board.clock_mhz * 1e6
    return Rates(
        f"{board.title} at {board.clock_mhz:g} MHz",
        nbytes=board.dram.gigabytes_per_second * 1e9 * board.dram.efficiency,
        integers=clock * board.engines * facts.layout.packing.rows * LINE,
        floats=clock * board.vector_lanes,
    )
