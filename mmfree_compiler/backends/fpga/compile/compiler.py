"""FPGA compiler: a Program becomes a stream of weights and programs of instructions."""

from __future__ import annotations

from dataclasses import dataclass

from mmfree_compiler.artifact import WEIGHTS, Artifact, Build
from mmfree_compiler.backends.explained import Profile
from mmfree_compiler.backends.fpga.compile.allocate import allocate
from mmfree_compiler.backends.fpga.compile.draft import Buffer, Draft, Part
from mmfree_compiler.backends.fpga.compile.link import line_up, link
from mmfree_compiler.backends.fpga.compile.lower import lower
from mmfree_compiler.backends.fpga.compile.memory import constants, memory_map, most_steps
from mmfree_compiler.backends.fpga.compile.passes.pack_weights import PackWeights
from mmfree_compiler.backends.fpga.compile.schedule import schedule
from mmfree_compiler.backends.fpga.compile.select import SELECT
from mmfree_compiler.backends.fpga.compile.waits import insert_waits
from mmfree_compiler.backends.fpga.facts import ABI, MOST_TOKENS, Facts
from mmfree_compiler.backends.fpga.isa.encoding import encode_program
from mmfree_compiler.backends.fpga.isa.opcode import Instruction
from mmfree_compiler.backends.fpga.spec import Spec
from mmfree_compiler.backends.interface import Emitted, ProgramPass
from mmfree_compiler.errors import TargetError, UnsupportedError
from mmfree_compiler.program import Program


class FpgaCompiler:
    """See interface.Compiler."""

    ops = frozenset(SELECT)

    def passes(self, program: Program, spec: Spec) -> tuple[ProgramPass, ...]:  # noqa: ARG002 - the interface
        return (PackWeights(spec.layout),)

    def emit(self, program: Program, spec: Spec) -> Emitted:
        made = programs(program, spec)
        weights, tensors = constants(program, made.parts)
        members = {role: f"fpga/{role}.words" for role in made.code}
        facts = made.facts.model_dump()
        build = Build(name=spec.board.name, abi=ABI, members=members, facts=facts)
        code = {members[role]: _encoded(own) for role, own in made.code.items()}
        return Emitted((build,), tensors, {WEIGHTS: weights, **code})

    def profile(self, artifact: Artifact, threads: int | None) -> Profile:  # noqa: ARG002 - the interface
        """See explained.Profiler: no hardware runs."""
        from mmfree_compiler.backends.fpga.compile.profile import profile

        return profile(artifact)


def _encoded(program: list[Instruction]) -> bytes:
    try:
        return encode_program(program)
    except OverflowError as error:
        hint = "Make the model smaller: docs/targets/fpga.md has the widths of fields"
        raise UnsupportedError("program", str(error), hint) from None


@dataclass(frozen=True)
class Programs:
    """The instructions of each program, what they take from the stream, and the map of memory.

    `nodes` has the draft.Draft.node of each instruction.
    """

    code: dict[str, list[Instruction]]
    nodes: dict[str, list[str]]
    parts: list[Part]
    facts: Facts


def programs(program: Program, spec: Spec) -> Programs:
    """Those of a Program whose weights are packed. Raises UnsupportedError and TargetError."""
    lowered = lower(program)
    parts = [schedule(part, spec) for part in lowered.parts]
    drafts = {
        role: line_up(parts[: own.parts], own.end, own.repeated)
        for role, own in lowered.outlines.items()
    }
    tokens, addresses = _fitted(drafts, spec)
    found = memory_map(program, parts, tokens)
    code = {
        role: insert_waits(link(own, addresses[role], found.places), tokens)
        for role, own in drafts.items()
    }
    facts = Facts(
        board=spec.board,
        density=spec.density,
        tokens=tokens,
        steps=most_steps(program),
        weights=found.weights,
        memory=found.behind,
        places=found.places,
    )
    nodes = {role: [draft.node for draft in own] for role, own in drafts.items()}
    return Programs(code, nodes, parts, facts)


def _fitted(drafts: dict[str, list[Draft]], spec: Spec) -> tuple[int, dict[str, dict[Buffer, int]]]:
    """The most tokens for whose rows the board's memories have room, and all addresses then."""
    memories = {"scratch": spec.board.scratch_lines, "codes": spec.board.code_lines}
    tokens = MOST_TOKENS
    while tokens:
        placed = {role: allocate(own, memories, tokens) for role, own in drafts.items()}
        fitting = {role: found for role, found in placed.items() if found is not None}
        if len(fitting) == len(drafts):
            return tokens, fitting
        tokens //= 2
    cause = f"has {spec.board.scratch_kib} KiB for rows and {spec.board.codes_kib} KiB for codes"
    hint = "Choose a board with more, or a smaller model"
    raise TargetError(f"board {spec.board.name!r}", f"{cause}, too little for one token", hint)
