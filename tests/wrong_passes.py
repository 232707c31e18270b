"""Passes that change what a model computes, for the tests of what finds them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from op_modules import mm
from torch import fx

from mmfree_compiler.program import Constant, Node, Program, Stage


@dataclass(frozen=True)
class DoublesScales:
    """A pass over Programs: all ternary weights become twice as large, or half."""

    name: ClassVar[str] = "doubles_scales"

    def __call__(self, program: Program) -> Program:
        return replace(
            program, constants={n: self.changed(c) for n, c in program.constants.items()}
        )

    def changed(self, constant: Constant) -> Constant:
        if not constant.name.endswith("scale"):
            return constant
        return replace(constant, parts=tuple(2 * part for part in constant.parts))


@dataclass(frozen=True)
class DoublesLastScale:
    """A pass over Programs: the weight of the last product becomes twice as large."""

    name: ClassVar[str] = "doubles_last_scale"

    def __call__(self, program: Program) -> Program:
        scale = [node.inputs[3] for node in program.nodes() if node.op == "ternary_linear"][-1]
        old = program.constants[str(scale)]
        *others, last = old.parts
        new = replace(old, parts=(*others, 2 * last))
        return replace(program, constants={**program.constants, old.name: new})


@dataclass(frozen=True)
class Swaps:
    """A pass over Programs: the op `after` takes the place of `before`."""

    before: str
    after: str
    name: ClassVar[str] = "swaps"

    def __call__(self, program: Program) -> Program:
        def node(old: Node) -> Node:
            return replace(old, op=self.after) if old.op == self.before else old

        stages = (
            tuple(tuple(map(node, part)) for part in (s.rows, s.tiles)) for s in program.stages()
        )
        return replace(program, body=tuple(Stage(*parts) for parts in stages))


@dataclass(frozen=True)
class DropsSilu:
    """A pass over graphs."""

    name: ClassVar[str] = "drops_silu"

    def __call__(self, gm: fx.GraphModule) -> fx.GraphModule:
        for node in gm.graph.find_nodes(op="call_function", target=mm.silu.default):
            node.replace_all_uses_with(node.args[0])
        gm.recompile()
        return gm
