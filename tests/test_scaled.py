"""Programs of shapes, made from a small model: what compiling a model of the shape makes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mmfree_compiler import passes
from mmfree_compiler.models import MatMulFreeLM, ModelConfig
from mmfree_compiler.models.config import SHAPES
from mmfree_compiler.program import Loop
from mmfree_compiler.program_rules import verify
from mmfree_compiler.program_text import listing
from mmfree_compiler.scaled import program_of
from mmfree_compiler.sources import Source
from mmfree_compiler.trace import trace


def test_the_program_of_a_real_model() -> None:
    config = ModelConfig.of(128, 2, 300)
    source = Source.of(MatMulFreeLM(config), None)
    graph = passes.run(passes.GRAPH, trace(source.module, source.traced))
    real, scaled = passes.run(passes.PROGRAM, passes.lower(graph)), program_of(config)
    # The halves of a weight that is split are named by the columns where they begin.
    split = {f"_{config.intermediate}": "_256"}
    text = listing(replace(real, notes=()))
    for name, small in split.items():
        text = text.replace(f"codes{name}", f"codes{small}")
    assert listing(scaled) == text


@pytest.mark.parametrize("shape", SHAPES)
def test_published_shapes(shape: str) -> None:
    config, program = SHAPES[shape], program_of(SHAPES[shape])
    verify(program, "scaled")
    (loop,) = (step for step in program.body if isinstance(step, Loop))
    assert loop.count == config.num_hidden_layers
    weights = [c for c in program.constants.values() if c.role == "ternary"]
    elements = sum(c.shape[0] * c.shape[1] * len(c.parts) for c in weights)
    d, ff, layers = config.hidden_size, config.intermediate, config.num_hidden_layers
    assert elements == layers * (4 * d * d + 3 * d * ff) + config.vocab_size * d
