"""Small Programs by hand, and what they compute in NumPy: outputs and loops of every kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmfree_compiler.passes.group_stages import GroupStages
from mmfree_compiler.program import (
    Constant,
    Loop,
    Node,
    Program,
    Stage,
    StateSlot,
    Step,
    Value,
    ValueType,
)

Floats = NDArray[np.float32]
Results = tuple[Floats, ...]

WIDTH, NARROW = 20, 5  # of rows; both end in padding


def width(name: str) -> int:
    """A name says how wide its value is."""
    if name.endswith(".scale"):
        return 1
    return NARROW if name.startswith("n") else WIDTH


def dtype(name: str) -> ValueType:
    """And of what type."""
    return "int8" if name.endswith(".codes") else "float32"


def relu(x: str, out: str) -> Node:
    return Node("relu", (x,), (out,))


def add(x: str, y: str, out: str) -> Node:
    return Node("add", (x, y), (out,))


def norm(x: str, out: str) -> Node:
    return Node("rms_norm", (x, f"ones{width(x)}"), (out,), {"eps": 1e-6})


def scan(x: str, out: str) -> Node:
    return Node("mlgru_scan", (x, x, None), (out,), state=f"{out}.state")


def quantize(x: str, out: str) -> Node:
    return Node("quantize", (x,), (f"{out}.codes", f"{out}.scale"), {"quant_eps": 1e-5})


def product(out: str) -> Node:
    """Of codes that `quantize` makes for it."""
    return Node("ternary_linear", (f"{out}.codes", f"{out}.scale", "weight", "one", None), (out,))


def rows(*nodes: Node) -> Stage:
    return Stage(nodes, ())


def tiles(*nodes: Node) -> Stage:
    return Stage((), nodes)


def loop(initial: str, result: str, tag: str = "") -> Loop:
    """Three times: x = x + relu(norm(x))."""
    n = "n" if width(initial) == NARROW else "w"
    c, r, t, u = (f"{n}{name}{tag}" for name in ("carried", "normed", "positive", "update"))
    body = Stage((norm(c, r),), (relu(r, t),)), tiles(add(c, t, u))
    return Loop(3, body, ((initial, c),), (u,), (result,))


def loop_that_reads(outer: str, initial: str, result: str) -> Loop:
    """Three times: t = relu(norm(x + outer)), x = x + norm(t)."""
    body = (
        tiles(add("c", outer, "s")),
        Stage((norm("s", "r"),), (relu("r", "t"),)),
        Stage((norm("t", "q"),), (add("q", "c", "u"),)),
    )
    return Loop(3, body, ((initial, "c"),), ("u",), (result,))


def loop_of_two(*initials: str) -> Loop:
    """Three times: t = relu(norm(x)), x = x + t, y = y + t; `p` and `q` are the last x and y."""
    body = (
        Stage((norm("c", "r"),), (relu("r", "t"),)),
        tiles(add("c", "t", "u"), add("d", "t", "v")),
    )
    return Loop(3, body, tuple(zip(initials, "cd", strict=True)), ("u", "v"), ("p", "q"))


def made(body: Iterable[Step], outputs: tuple[str, ...], inputs: tuple[str, ...]) -> Program:
    """A Program with all declarations that it needs."""
    program = Program("module", inputs, outputs, {}, {}, (), tuple(body))
    names = {*inputs, *(name for node in program.nodes() for name in node.outputs)}
    for step in program.body:
        if isinstance(step, Loop):
            names |= {*step.results, *(inside for _, inside in step.carried)}
    values = {name: Value(name, width(name), dtype(name)) for name in sorted(names)}
    read = {name for node in program.nodes() for name in node.inputs}
    constants = {each.name: each for each in _constants() if each.name in read}
    scans = [(node.state, node.outputs[0]) for node in program.nodes() if node.state]
    states = tuple(StateSlot(state, (width(out),)) for state, out in scans)
    return replace(program, values=values, constants=constants, states=states)


def _constants() -> Iterator[Constant]:
    for size in (WIDTH, NARROW):
        yield Constant(f"ones{size}", "float32", (size,), (np.ones(size, np.float32),))
    yield Constant("one", "float32", (1,), (np.ones(1, np.float32),))
    weight = (np.eye(WIDTH, dtype=np.int8),)
    yield Constant("weight", "int8", (WIDTH, WIDTH), weight, "ternary")


Made = Callable[[str, str], Iterable[Node]]  # the nodes that make a value of another
PLAIN: tuple[Made, ...] = (lambda x, out: [relu(x, out)], lambda x, out: [norm(x, out)])
EVERY: tuple[Made, ...] = (
    *PLAIN,
    lambda x, out: [scan(x, out)],
    lambda x, out: [quantize(x, out), product(out)],
)


@st.composite
def programs(draw: st.DrawFn, ops: tuple[Made, ...] = PLAIN) -> Program:
    """Ops at random, perhaps a loop, ops at random; any of the values are outputs."""
    known = ["x", "y", "z"][: draw(st.integers(1, 3))]
    inputs = tuple(known)
    body: list[Step] = [*_stages(draw, known, ops)]
    if draw(st.booleans()):
        initial = draw(st.sampled_from(known))
        known.remove(initial)  # a loop may overwrite it
        outer = draw(st.sampled_from([*known, None]))
        reading = loop_that_reads(outer, initial, "result") if outer else None
        body.append(reading or loop(initial, "result"))
        known.append("result")
    body += _stages(draw, known, ops)
    outputs = draw(st.lists(st.sampled_from(known), min_size=1, max_size=5))
    return made(body, tuple(outputs), inputs)


def _stages(draw: st.DrawFn, known: list[str], ops: tuple[Made, ...]) -> tuple[Stage, ...]:
    nodes: list[Node] = []
    for _ in range(draw(st.integers(0, 4))):
        new, operand = f"v{len(known)}", st.sampled_from(tuple(known))
        one = draw(st.sampled_from([*ops, None]))
        nodes += one(draw(operand), new) if one else [add(draw(operand), draw(operand), new)]
        known.append(new)
    ungrouped = made([tiles(*nodes)], (), ())
    return tuple(GroupStages()(ungrouped).stages())


def positive(x: Floats) -> Floats:
    return np.maximum(x, np.float32(0))


def normed(x: Floats) -> Floats:
    scaled: Floats = x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(1e-6))
    return scaled


def looped(x: Floats) -> Floats:
    for _ in range(3):
        x = x + positive(normed(x))
    return x


def paired(x: Floats, y: Floats) -> Results:
    for _ in range(3):
        t = positive(normed(x))
        x, y = x + t, y + t
    return y, x


@dataclass(frozen=True)
class Case:
    """A Program, and the outputs that it must have for its inputs."""

    body: tuple[Step, ...]
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    expected: Callable[..., Results]

    @property
    def program(self) -> Program:
        return made(self.body, self.outputs, self.inputs)


first = tiles(relu("x", "a"))

CASES = {
    "an input alone": Case((), ("x",), ("x",), lambda x: (x,)),
    "an input twice": Case((), ("x", "x"), ("x",), lambda x: (x, x)),
    "inputs beside a value": Case(
        (first,), ("n", "a", "x"), ("x", "n"), lambda x, n: (n, positive(x), x)
    ),
    "a value three times": Case((first,), ("a",) * 3, ("x",), lambda x: (positive(x),) * 3),
    "a row op's": Case((rows(norm("x", "r")),), ("r",), ("x",), lambda x: (normed(x),)),
    "a row op's, and what is made of it": Case(
        (Stage((norm("x", "r"),), (relu("r", "a"),)),),
        ("a", "r"),
        ("x",),
        lambda x: (positive(normed(x)), normed(x)),
    ),
    "earlier row ops'": Case(
        (
            Stage((norm("x", "r"), norm("n", "nr")), (relu("r", "a"), relu("nr", "na"))),
            Stage((norm("a", "s"),), (add("s", "r", "b"),)),
        ),
        ("r", "b", "s", "nr", "na"),
        ("x", "n"),
        lambda x, n: (
            *(normed(x), normed(positive(normed(x))) + normed(x)),
            *(normed(positive(normed(x))), normed(n), positive(normed(n))),
        ),
    ),
    "a loop's": Case((loop("x", "y"),), ("y",), ("x",), lambda x: (looped(x),)),
    "a loop's twice": Case(
        (first, loop("a", "y")), ("y", "y"), ("x",), lambda x: (looped(positive(x)),) * 2
    ),
    "a loop's that is read": Case(
        (first, loop("a", "y"), tiles(relu("y", "b"))),
        ("y", "b"),
        ("x",),
        lambda x: (looped(positive(x)), positive(looped(positive(x)))),
    ),
    "an input that is read before the loop that starts from it": Case(
        (first, loop("x", "y"), tiles(add("a", "y", "b"))),
        ("b", "a"),
        ("x",),
        lambda x: (positive(x) + looped(x), positive(x)),
    ),
    "an input that a row op reads before the loop": Case(
        (rows(norm("x", "r")), loop("x", "y"), tiles(add("r", "y", "b"))),
        ("b",),
        ("x",),
        lambda x: (normed(x) + looped(x),),
    ),
    "a loop of two values": Case((loop_of_two("x", "y"),), ("q", "p"), ("x", "y"), paired),
    "loops from two inputs": Case(
        (loop("x", "y"), loop("n", "nz", "2")),
        ("nz", "y"),
        ("x", "n"),
        lambda x, n: (looped(n), looped(x)),
    ),
    "a loop after a loop": Case(
        (loop("x", "y"), loop("y", "z", "2")), ("z",), ("x",), lambda x: (looped(looped(x)),)
    ),
    "four loops": Case(
        (loop("x", "y"), loop("y", "z", "2"), loop("z", "v", "3"), loop("v", "w", "4")),
        ("w",),
        ("x",),
        lambda x: (looped(looped(looped(looped(x)))),),
    ),
}
