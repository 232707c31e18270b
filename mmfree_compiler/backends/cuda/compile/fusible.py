"""Which stages one kernel runs whole when a call has one token."""

from __future__ import annotations

from mmfree_compiler.backends.cuda.strides import codes_stride
from mmfree_compiler.program import Loop, Program, Stage

# Every program reads and makes the whole rows: too much work beyond these sizes.
_WIDEST_ROW = 8192
_MOST_COLUMNS = 16384
ROW_OPS = frozenset({"gated_norm", "norm_quant", "quantize", "rms_norm"})


def is_fusible(program: Program, stage: Stage) -> bool:
    """Whether products of codes that the stage makes are all that it takes from its rows.

    Everything else that reads a row finds it in memory, where no single program would write it.
    """
    products = [node for node in stage.tiles if node.op == "ternary_linear"]
    made = {name for node in stage.rows for name in node.outputs}
    codes = {name for node in products for name in node.inputs[:2] if name is not None}
    widths = {program.values[node.outputs[0]].width for node in stage.tiles}
    depths = {program.values[str(node.inputs[0])].width for node in products}
    sizes = [program.values[name].width for name in made]
    return (
        bool(products)
        and {node.op for node in stage.rows} <= ROW_OPS
        and codes <= made
        and len(widths) == len(depths) == 1
        and max(widths) <= _MOST_COLUMNS
        and max(map(codes_stride, sizes)) <= _WIDEST_ROW
        and not made & _read_elsewhere(program, stage)
        and not any(made & set(node.inputs[2:]) for node in products)
        and not _overwrites_its_rows(program, stage)
    )


def _overwrites_its_rows(program: Program, stage: Stage) -> bool:
    """Whether some program may write what others still read: a carried value and its update."""
    read = {name for node in stage.rows for name in node.inputs}
    written = {name for node in stage.tiles for name in node.outputs}
    loops = [step for step in program.body if isinstance(step, Loop)]
    return any(
        inside in read and update in written
        for loop in loops
        for (_, inside), update in zip(loop.carried, loop.updates, strict=True)
    )


def gates_of(program: Program) -> frozenset[str]:
    """Values that are read as the gates of gated_norm in fusible stages, and in no other way."""
    gates: set[str | None] = set()
    others: set[str | None] = set(ends_of(program))
    for stage in program.stages():
        fusible = is_fusible(program, stage)
        for node in stage.nodes:
            gate = node.inputs[1:2] if node.op == "gated_norm" and fusible else ()
            gates |= set(gate)
            others |= {name for place, name in enumerate(node.inputs) if place != 1 or not gate}
    return frozenset(str(name) for name in gates - others if name in program.values)


def _read_elsewhere(program: Program, stage: Stage) -> frozenset[str | None]:
    """What anything but the rows and products of `stage` reads."""
    own = {id(node) for node in stage.rows}
    own |= {id(node) for node in stage.tiles if node.op == "ternary_linear"}
    nodes = [node for each in program.stages() for node in each.nodes if id(node) not in own]
    read: set[str | None] = set(ends_of(program))
    return frozenset(read.union(*(node.inputs for node in nodes)))


def ends_of(program: Program) -> frozenset[str]:
    """Outputs, and what loops carry."""
    read = set(program.outputs)
    for step in program.body:
        if isinstance(step, Loop):
            read |= {
                *step.updates,
                *step.results,
                *(name for pair in step.carried for name in pair),
            }
    return frozenset(read)
