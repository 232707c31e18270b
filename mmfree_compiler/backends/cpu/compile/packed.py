"""Weights that are packed in several layouts: their names, and Programs that read one layout."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from mmfree_compiler.backends.cpu.layouts import LAYOUTS
from mmfree_compiler.program import Node, Program, Stage, Step

P = TypeVar("P", bound=Program)


def packed_name(weight: str, layout: str) -> str:
    """The name of the constant that has a ternary weight in one layout."""
    for known in LAYOUTS:
        weight = weight.removesuffix(f"@{known}")
    return f"{weight}@{layout}"


def reading(program: P, layout: str) -> P:
    """The same Program, but reading its ternary weights in `layout`, one of its layouts."""

    def operand(name: str | None) -> str | None:
        renamed = packed_name(name, layout) if name else None
        return renamed if renamed in program.constants else name

    def node(old: Node) -> Node:
        return replace(old, inputs=tuple(map(operand, old.inputs)))

    def stage(old: Stage) -> Stage:
        return Stage(tuple(map(node, old.rows)), tuple(map(node, old.tiles)))

    def step(old: Step) -> Step:
        if isinstance(old, Stage):
            return stage(old)
        return replace(old, body=tuple(map(stage, old.body)))

    return replace(program, body=tuple(map(step, program.body)))
