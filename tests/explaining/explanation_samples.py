"""Explanations made by hand, for the tests of their page."""

from __future__ import annotations

from mmfree_compiler.explaining.drawn import (
    ConstantUse,
    Cost,
    Edge,
    GraphNode,
    LoopBox,
    NoteLine,
    Operand,
    ProgramGraph,
    StageBox,
    TimedPart,
)
from mmfree_compiler.explaining.schema import (
    Audit,
    Ceilings,
    Coverage,
    Difference,
    Explanation,
    FloatProduct,
    ModelFacts,
    PassStep,
    Snapshot,
    TargetPart,
)

COST = Cost(constant_bytes=4096, value_bytes=64, integer_operations=8192, roofline_us=1.5)
_ROW = Operand(name="x", dtype="float32", width=64)


def _inside(node: GraphNode) -> GraphNode:
    """The node, in the loop."""
    return node.model_copy(update={"stage": "stage 0", "loop": "loop 0", "times": 24, "cost": COST})


def graph(name: str = "h") -> ProgramGraph:
    """A loop of one stage with a norm and a product; `name` is part of every text in it."""
    weight = f"layers_0_{name}_weight_codes@packed"
    use = ConstantUse(
        name=weight,
        role="ternary",
        dtype="uint8",
        shape=(64, 64),
        parts=24,
        layout=f"packed {name}",
        nbytes=24576,
    )
    note = NoteLine(node=name, text=f"noted {name}")
    nodes = (
        GraphNode(id="input", op=name, kind="input", outputs=(_ROW,)),
        GraphNode(id=weight, op=weight, kind="constant", constants=(use,)),
        _inside(
            GraphNode(id="norm", op="norm_quant", kind="row", inputs=(_ROW,), meaning=f"of {name}")
        ),
        _inside(
            GraphNode(
                id="product",
                op="ternary_linear",
                kind="tile",
                attributes={"attribute": name},
                constants=(use,),
                source=f"model.py:7: y = layer(x)  # {name}",
                notes=(note,),
                outputs=(Operand(name=name, dtype="float32", width=64),),
            )
        ),
        GraphNode(id="output", op=name, kind="output", inputs=(_ROW,)),
    )
    edges = (
        Edge(source="input", target="norm", name="x"),
        Edge(source="norm", target="product", name="codes"),
        Edge(source=weight, target="product", name=weight),
        Edge(source="product", target="norm", name="y", carried=True),
        Edge(source="product", target="output", name="y"),
    )
    timed = COST.model_copy(update={"measured_us": 3.0})
    stage = StageBox(
        id="stage 0",
        title=f"norm_quant, {name}",
        loop="loop 0",
        times=24,
        cost=COST,
        parts=(
            TimedPart(title=name, nodes=("norm",), cost=timed),
            TimedPart(title=f"product {name}", nodes=("product",), cost=timed),
        ),
    )
    loop = LoopBox(id="loop 0", count=24, stages=("stage 0",))
    return ProgramGraph(nodes=nodes, edges=edges, stages=(stage,), loops=(loop,))


def part(target: str, name: str = "h") -> TargetPart:
    """What was made for a target."""
    return TargetPart(
        target=target,
        builds=(name,),
        runs_here=name,
        weight_bytes=24576,
        bits_per_weight=2.0,
        program=graph(name),
        memory={name: {name: 1, "of": name}},
        kernels={name: {"file": name}},
        ceilings=Ceilings(how=name, bytes_per_second=1e10),
        how=f"measured by {name}",
        decode_us=40.0,
        roofline_us=1.5,
        others_us={name: -2.0},
        missing=(name,),
    )


def explanation(name: str = "h", targets: tuple[str, ...] = ("cpu",)) -> Explanation:
    """Two passes over a module with a float product left; `name` is part of every text in it."""
    before = Snapshot(
        form="graph",
        nodes=2,
        ops={"aten.linear": 1, name: 1},
        text=f"first\nold = linear(x) {name}\nlast",
        lines=3,
    )
    after = Snapshot(
        form="program",
        nodes=1,
        ops={"ternary_linear": 1},
        text=f"first\nnew = linear(x) {name}\nlast",
        lines=90,
    )
    product = FloatProduct(
        op="aten.mm", node=name, module=name, source=f"model.py:9: {name}", why=name
    )
    notes = tuple(NoteLine(node=f"{name}_{i}", text=f"noted {name}") for i in range(5))
    return Explanation(
        model=ModelFacts(title=f"model {name}", kind="module", layers=24, parameters=98304),
        summary=f"24 repetitions of {name}",
        passes=(
            PassStep(name="first", stage="graph", purpose=f"For {name}.", before=0, after=0),
            PassStep(
                name="second",
                stage="program",
                purpose=f"To `{name}`.",
                notes=notes,
                before=0,
                after=1,
                seconds=0.5,
                difference=Difference(largest=2.5e-7),
            ),
            PassStep(name=name, stage=targets[0], purpose=name, difference=Difference(reason=name)),
        ),
        snapshots=(before, after),
        targets=tuple(part(target, name) for target in targets),
        coverage=(Coverage(op=name, count=1, targets=("cpu",)),),
        kinds=("cpu", "other"),
        audit=Audit(where="graph", examined=3, products=(product,)),
        missing=(name,),
        failed=name,
    )
