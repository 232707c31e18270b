"""What an explanation says of each pass, of the final Program, and of a saved model."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from explained import LAYERS, VOCABULARY, WIDTH, compiled, tiny_lm
from no_gpu import without_code

import mmfree_compiler as mmf
from mmfree_compiler import passes
from mmfree_compiler.artifact import read_artifact
from mmfree_compiler.errors import InputError
from mmfree_compiler.explaining import Explanation, History, explain_artifact
from mmfree_compiler.explaining.drawn import ProgramGraph

COMMON = [*(step.name for step in passes.GRAPH), "lower", *(step.name for step in passes.PROGRAM)]
HIDDEN = 256  # of the gated unit


def program(explanation: Explanation) -> ProgramGraph:
    found = explanation.targets[0].program
    assert found is not None
    return found


def test_every_pass_in_order_with_what_it_does() -> None:
    steps = compiled().explain().passes
    assert [step.name for step in steps] == [*COMMON, "own_constants"]
    assert [step.stage for step in steps[-4:]] == ["program"] * 3 + ["reference"]
    assert all(step.purpose.endswith(".") for step in steps), [s.purpose for s in steps]
    assert all(step.seconds is not None for step in steps)


@pytest.mark.parametrize("kind", ["cpu:portable", "fpga", "onnx"])
def test_the_passes_of_targets_say_what_they_do(kind: str) -> None:
    from mmfree_compiler import backends

    backend, spec = backends.of(kind)
    own = backends.compiler(backend).passes(compiled().program, spec)
    from mmfree_compiler.explaining.history import purpose

    assert all(purpose(step).endswith((".", "weights.")) for step in own)


def test_each_pass_starts_from_what_the_one_before_made() -> None:
    found = compiled().explain()
    assert [step.before for step in found.passes] == list(range(len(found.passes)))
    assert [step.after for step in found.passes] == list(range(1, len(found.passes) + 1))
    forms = [snapshot.form for snapshot in found.snapshots]
    assert forms == ["graph"] * (1 + len(passes.GRAPH)) + ["program"] * 4
    rolled = found.snapshots[found.passes[-2].after or 0]
    assert rolled.ops["ternary_linear"] == 8  # seven of a layer, and the head
    assert sum(rolled.ops.values()) == rolled.nodes
    assert f"loop {LAYERS}" in rolled.text


def test_targets_start_from_the_same_program() -> None:
    with without_code():
        model = mmf.compile(tiny_lm(), ["reference", "cuda:sm_80"], check=False)
    found = model.explain()
    first, *_ = (step for step in found.passes if step.stage == "reference")
    second, *_ = (step for step in found.passes if step.stage.startswith("cuda"))
    assert first.before == second.before
    assert [part.target for part in found.targets] == ["reference", "cuda:sm_80"]
    cuda = found.targets[1]
    assert cuda.kernels
    assert cuda.memory["scratch"]["bytes"]
    assert cuda.ceilings is not None
    assert cuda.ceilings.bytes_per_second == 2039e9
    assert all(node.cost.roofline_us is not None for node in cuda.program.nodes)  # type: ignore[union-attr]


def test_the_differences_from_the_module() -> None:
    """After every pass if asked for; else only that of the last Program is known."""
    every = [step.difference for step in compiled("passes").explain().passes]
    assert all(found.largest is not None and found.largest < 1e-4 for found in every)
    *others, last = [step.difference for step in compiled("module").explain().passes]
    assert last.largest is not None
    assert all(found.largest is None and "check" in found.reason for found in others)
    assert all(step.difference.largest is None for step in compiled(False).explain().passes)


def test_the_nodes_and_edges_of_the_program() -> None:
    graph = program(compiled().explain())
    nodes = {node.id: node for node in graph.nodes}
    assert len(nodes) == len(graph.nodes)
    assert all(edge.source in nodes and edge.target in nodes for edge in graph.edges)
    kinds = {kind: [n for n in graph.nodes if n.kind == kind] for kind in ("input", "output")}
    assert [len(found) for found in kinds.values()] == [1, 1]
    (loop,) = graph.loops
    assert (loop.count, len(loop.stages)) == (LAYERS, 4)
    inside = [node for node in graph.nodes if node.loop]
    assert all(node.times == LAYERS for node in inside)
    assert {edge.carried for edge in graph.edges} == {True, False}
    reached = {edge.target for edge in graph.edges} | {edge.source for edge in graph.edges}
    assert reached == set(nodes)
    (scan,) = (node for node in graph.nodes if node.kind == "scan")
    assert "mlgru_scan(" in scan.source
    assert scan.meaning.startswith("`h_t = forget_t * h_{t-1} + c_t`")
    assert [edge.source for edge in graph.edges if edge.target == scan.id][-1].startswith("state")


def test_the_notes_are_at_their_nodes() -> None:
    graph = program(compiled().explain())
    texts = {note.text for node in graph.nodes for note in node.notes}
    assert any(text.startswith("fuse_norm_quant: ") for text in texts)


def test_what_a_token_costs() -> None:
    graph = program(compiled().explain())
    weights = LAYERS * (4 * WIDTH * WIDTH + 3 * WIDTH * HIDDEN) + VOCABULARY * WIDTH
    assert sum(stage.cost.integer_operations for stage in graph.stages) == weights
    state = LAYERS * WIDTH * 4
    assert sum(stage.cost.state_bytes for stage in graph.stages) == 2 * state
    products = [node for node in graph.nodes if node.op == "ternary_linear"]
    # Not packed: a byte per weight, and a scale.
    assert sum(node.cost.constant_bytes for node in products) == weights + 4 * (7 * LAYERS + 1)
    (gather,) = (node for node in graph.nodes if node.op == "embedding")
    assert gather.cost.constant_bytes == 4 * WIDTH
    assert sum(node.cost.float_operations for node in products) == 2 * (
        LAYERS * (5 * WIDTH + 2 * HIDDEN) + VOCABULARY
    )


def test_the_model_and_its_coverage() -> None:
    found = compiled().explain()
    assert (found.model.kind, found.model.layers) == ("lm", LAYERS)
    assert found.model.state_bytes == 4 * WIDTH * LAYERS
    counts = {row.op: row.count for row in found.coverage}
    assert counts["ternary_linear"] == 7 * LAYERS + 1
    assert all("reference" in row.targets for row in found.coverage)
    assert found.summary.startswith("2 equal layers became one loop of 4 stages; 15 ternary")


def test_json_round_trip() -> None:
    found = compiled("passes").explain()
    assert Explanation.from_json(found.json()) == found
    assert len(found.json()) < 400_000
    for wrong in ("", "{}", "[1]", found.json().replace('"graph"', '"grape"')):
        with pytest.raises(InputError, match="explanation: is not one"):
            Explanation.from_json(wrong)


def test_a_pickled_model_keeps_its_passes() -> None:
    model = compiled(target="cpu:portable")
    found = pickle.loads(pickle.dumps(model)).explain()
    assert found.passes == model.explain().passes
    assert found.targets[0].program is None  # left out, where kernels run


def test_a_saved_model(tiny_artifact: Path) -> None:
    """Its notes and sizes are known; what needs the checkpoint is named."""
    artifact = read_artifact(tiny_artifact)
    found = explain_artifact(artifact, History(), None, True)
    own = ["copy_rows", "pack_weights", "plan_memory"]
    assert [step.name for step in found.passes] == [*COMMON, *own]
    assert all(step.purpose for step in found.passes[: len(COMMON)])
    notes = [(step.name, n.node, n.text) for step in found.passes for n in step.notes]
    assert tuple(notes) == artifact.manifest.all_notes
    (part,) = found.targets
    assert (part.runs_here, part.program) == ("portable", None)
    assert 2 <= (part.bits_per_weight or 0) < 2.1
    assert part.memory["shared"]["bytes per token"]
    assert "explain the checkpoint" in found.missing[0]
    assert "explain its checkpoint" in part.missing[0]
    assert "Not known: the Program" in str(found)


def test_the_text(golden: Callable[[str, str], None]) -> None:
    found = compiled().explain()
    steps = tuple(step.model_copy(update={"seconds": 0.0}) for step in found.passes)
    rows = tuple(row.model_copy(update={"targets": ("reference",)}) for row in found.coverage)
    found = found.model_copy(update={"passes": steps, "kinds": ("reference",), "coverage": rows})
    golden("tiny", found.text())
    golden("tiny_notes", found.text(notes=True))
    assert max(map(len, found.text(notes=True).splitlines())) <= 80


def test_the_text_of_an_fpga() -> None:
    """The figures of its cycle model, and the ceilings of its board."""
    found = mmf.compile(tiny_lm(), "fpga", check=False).explain()
    (part,) = found.targets
    assert part.kernels["speed"]["origin"] == "projected"
    assert part.kernels["decode program"]["instructions"]
    assert part.ceilings is not None
    assert re.search(r"not known +times: not measured", found.text())


def test_names_of_a_model_do_nothing_to_a_terminal() -> None:
    found = compiled().explain()
    hostile = found.model.model_copy(update={"title": "\x1b[31m[bold]red[/]\u202e"})
    text = found.model_copy(update={"model": hostile}).text()
    assert text.startswith(r"\x1b[31m[bold]red[/]\u202e")
