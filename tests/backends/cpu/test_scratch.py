"""Scratch memory that an artifact asks for."""

from __future__ import annotations

import pytest

from mmfree_compiler.backends.cpu.facts import MemoryPlan
from mmfree_compiler.backends.cpu.run.scratch import arenas
from mmfree_compiler.errors import ArtifactError


def test_arenas_are_as_planned() -> None:
    plan = MemoryPlan(shared=3, private=5, codes=7, scratch=64, chunk=2)
    shapes = [tuple(arena.shape) for arena in arenas(plan, threads=4)]
    assert shapes == [(6,), (20,), (28,), (256,)]


@pytest.mark.parametrize(
    "plan",
    [
        MemoryPlan(shared=1 << 48, chunk=1),  # more than an address space
        MemoryPlan(codes=1 << 48, chunk=1 << 31),  # more than an address can name
    ],
)
def test_a_hostile_plan_is_an_artifact_error(plan: MemoryPlan) -> None:
    with pytest.raises(ArtifactError, match="memory plan: needs too much"):
        arenas(plan, threads=1)
