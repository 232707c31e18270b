"""What each op takes of a token's time, by the cycle model."""

from __future__ import annotations

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.explained import Group, Profile
from mmfree_compiler.backends.fpga.compile.compiler import programs
from mmfree_compiler.backends.fpga.facts import read_facts
from mmfree_compiler.backends.fpga.spec import Spec
from mmfree_compiler.backends.fpga.timing.projection import timed_token
from mmfree_compiler.backends.fpga.timing.shares import added_cycles

_OTHERS = "reading inputs, storing outputs, choosing the token"
_NO_NODE: Group = ("",)  # of instructions for no node


def profile(artifact: Artifact) -> Profile:
    """See explained.Profiler: of the first build, as `mmfree bench` projects it."""
    assert artifact.program is not None
    facts = read_facts(artifact.entry.builds[0])
    board = facts.board
    made = programs(artifact.program, Spec(board.name, board, facts.density))
    token = timed_token(made.facts, made.code)
    clock = board.clock_mhz * 1e6
    nodes = made.nodes[token.role]
    groups: dict[Group, float] = {(name,): 0.0 for name in nodes}
    for place, cycles in added_cycles(token.timeline, token.first).items():
        groups[nodes[place],] += cycles / clock
    others = {_OTHERS: groups.pop(_NO_NODE, 0.0)}
    how = f"by the cycle model at {board.clock_mhz:g} MHz"
    return Profile(token.cycles / clock, groups, others, how=how, overlapping=True)
