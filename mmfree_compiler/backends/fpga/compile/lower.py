"""A Program as parts of drafts: straight ones and loops."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from mmfree_compiler.backends.fpga.compile.builder import Builder
from mmfree_compiler.backends.fpga.compile.draft import Buffer, Draft, Part, place
from mmfree_compiler.backends.fpga.compile.memory import logit_stride
from mmfree_compiler.backends.fpga.compile.select import SELECT
from mmfree_compiler.backends.fpga.facts import ADVANCE, DECODE, FORWARD, IDS, LOGITS
from mmfree_compiler.backends.fpga.isa.word import COUNTS
from mmfree_compiler.backends.fpga.strides import row_lines
from mmfree_compiler.backends.liveness import roots
from mmfree_compiler.program import Loop, Node, Program


@dataclass(frozen=True)
class Outline:
    """A program: the first `parts` parts, then `end`; `repeated`: for each step."""

    parts: int
    end: list[Draft]
    repeated: bool = False


@dataclass(frozen=True)
class Lowered:
    """The parts of which the programs consist, and what each role of facts.py makes of them."""

    parts: list[Part]
    outlines: dict[str, Outline]


def lower(program: Program) -> Lowered:
    """Raises UnsupportedError on what the machine cannot do."""
    b = Builder(program, roots(program), _late(program))
    for name in program.inputs:
        if program.values[name].dtype == "float32":
            _load(b, name)
    for step in program.body:
        if isinstance(step, Loop):
            with b.loop(step.count):
                for stage in step.body:
                    _select(b, stage.nodes)
        else:
            _select(b, step.nodes)
    outputs = [b.wanted(name) for name in program.outputs]
    *parts, last = (part for part in b.parts if part.drafts)
    parts += _parted(last)
    return Lowered(parts, _outlines(b, len(parts), outputs))


def _outlines(b: Builder, parts: int, outputs: list[Buffer]) -> dict[str, Outline]:
    stored = [_stored(b, number, rows) for number, rows in enumerate(outputs)]
    if b.program.kind == "module":
        return {FORWARD: Outline(parts, stored)}
    return {
        FORWARD: Outline(parts, stored),
        ADVANCE: Outline(parts - 1, []),
        DECODE: Outline(parts, _chosen(b, outputs[0]), repeated=True),
    }


def _parted(part: Part) -> tuple[Part, Part]:
    """A part, and its last instructions, which only wanted tokens need."""
    cut = len(part.drafts)
    while part.count == 1 and cut and _is_late(part.drafts[cut - 1]):
        cut -= 1
    return replace(part, drafts=part.drafts[:cut]), Part(1, part.drafts[cut:])


def _is_late(draft: Draft) -> bool:
    constant_or_choice = draft.opcode.name in ("params", "select")
    return constant_or_choice or draft.numbers.get("rows") == COUNTS.index("wanted")


def _select(b: Builder, nodes: Iterable[Node]) -> None:
    for node in nodes:
        b.node = node.outputs[0]
        SELECT[node.op](b, node)
    b.node = ""


def _load(b: Builder, name: str) -> None:
    width = b.program.values[name].width
    lines, address = row_lines(width), place("input", name)
    out = b.value(name)
    b.add("load", rows="tokens", dst=out, n=width, stride=lines, address=address)


def _chosen(b: Builder, logits: Buffer) -> list[Draft]:
    """The largest logits, and for each step the ids and the logits, which the host reads later."""
    width = b.program.values[b.program.outputs[0]].width
    steps = partial(Draft.of, stride=logit_stride(b.program), step=row_lines(width))
    return [
        steps("store", rows="wanted", address=LOGITS, a=logits, n=width),
        Draft.of("argmax", a=logits, n=width),
        Draft.of("store_ids", rows="tokens", address=IDS),
    ]


def _stored(b: Builder, number: int, rows: Buffer) -> Draft:
    width = b.program.values[b.program.outputs[number]].width
    lines, address = row_lines(width), place("output", str(number))
    return Draft.of("store", rows="wanted", a=rows, n=width, stride=lines, address=address)


def _late(program: Program) -> frozenset[str]:
    """The values that only wanted tokens need: no loop and no scan reads them or what follows.

    Rows of an embedding are gathered for all tokens, whose ids are numbered so.
    """
    needed = _needed(program)
    late: set[str] = set()
    for step in program.body:
        for node in () if isinstance(step, Loop) else step.nodes:
            of_codes = [name for name in node.inputs if name and _is_codes(program, name)]
            free = node.op != "embedding" and not needed & set(node.outputs)
            if free and late.issuperset(of_codes):
                late |= set(node.outputs)
    return frozenset(late)


def _needed(program: Program) -> set[str]:
    """The values that every token needs."""
    needed: set[str] = set()
    for step in reversed(program.body):
        if isinstance(step, Loop):
            needed |= {name for stage in step.body for node in stage.nodes for name in _names(node)}
            needed |= {initial for initial, _ in step.carried}
        else:
            for node in reversed(step.nodes):
                if node.state or needed & set(node.outputs):
                    needed |= set(_names(node))
    return needed


def _names(node: Node) -> Iterator[str]:
    yield from filter(None, node.inputs)
    yield from node.outputs


def _is_codes(program: Program, name: str) -> bool:
    return name in program.values and program.values[name].dtype == "int8"
