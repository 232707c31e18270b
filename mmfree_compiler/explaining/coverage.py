"""Which ops are left after all passes, and which kinds of target can lower them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from mmfree_compiler import backends
from mmfree_compiler.errors import ToolchainError
from mmfree_compiler.explaining.schema import Coverage
from mmfree_compiler.program import Loop, Program


def ops_of(program: Program) -> dict[str, int]:
    """How often each op is called for one token, all iterations of loops together."""
    counts: Counter[str] = Counter()
    for step in program.body:
        stages, times = (step.body, step.count) if isinstance(step, Loop) else ((step,), 1)
        for stage in stages:
            for node in stage.nodes:
                counts[node.op] += times
    return dict(counts)


def coverage(counts: Mapping[str, int]) -> tuple[tuple[str, ...], tuple[Coverage, ...]]:
    """The kinds of target that were asked, and a row for each op, the most frequent first.

    Kinds whose packages are not installed are left out.
    """
    lowered = _lowered() if counts else {}
    rows = (
        Coverage(op=op, count=count, targets=tuple(k for k, ops in lowered.items() if op in ops))
        for op, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )
    return tuple(lowered), tuple(rows)


def _lowered() -> dict[str, frozenset[str]]:
    found = {}
    for kind in backends.kinds():
        try:
            found[kind] = backends.compiler(backends.get(kind)).ops
        except ToolchainError:
            continue
    return found
