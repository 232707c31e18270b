"""Programs of a shape that no machine here could hold: a small model's, with other sizes.

They say what a compiler makes of the shape, and nothing about numbers: constants repeat one value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mmfree_compiler import passes
from mmfree_compiler.models import MatMulFreeLM, ModelConfig
from mmfree_compiler.program import Constant, Loop, Program, StateSlot, Step
from mmfree_compiler.sources import Source
from mmfree_compiler.trace import trace

_LAYERS, _HIDDEN, _VOCABULARY = 2, 64, 320


def program_of(config: ModelConfig) -> Program:
    """The Program, in front of a backend's passes, of a model of these sizes.

    The sizes of the small model are all different, so that each says what it is.
    """
    small = ModelConfig.of(_HIDDEN, _LAYERS, _VOCABULARY)
    sizes = {
        _HIDDEN: config.hidden_size,
        small.intermediate: config.intermediate,
        _VOCABULARY: config.vocab_size,
    }
    assert len(sizes) == 3
    source = Source.of(MatMulFreeLM(small), None)
    graph = passes.run(passes.GRAPH, trace(source.module, source.traced))
    program = passes.run(passes.PROGRAM, passes.lower(graph))
    return _scaled(program, sizes, config.num_hidden_layers)


def _scaled(program: Program, sizes: Mapping[int, int], layers: int) -> Program:
    values = {
        name: replace(value, width=sizes.get(value.width, value.width))
        for name, value in program.values.items()
    }
    constants = {name: _constant(c, sizes, layers) for name, c in program.constants.items()}
    return replace(
        program,
        values=values,
        constants=constants,
        states=tuple(_state(slot, sizes, layers) for slot in program.states),
        body=tuple(_step(step, layers) for step in program.body),
    )


def _constant(constant: Constant, sizes: Mapping[int, int], layers: int) -> Constant:
    shape = tuple(sizes.get(size, size) for size in constant.shape)
    count = layers if len(constant.parts) > 1 else 1
    value = constant.parts[-1].reshape(-1)[-1]
    return replace(constant, shape=shape, parts=(np.broadcast_to(value, shape),) * count)


def _state(slot: StateSlot, sizes: Mapping[int, int], layers: int) -> StateSlot:
    shape = tuple(sizes.get(size, size) for size in slot.shape)
    return replace(slot, shape=shape, count=layers if slot.count > 1 else 1)


def _step(step: Step, layers: int) -> Step:
    return replace(step, count=layers) if isinstance(step, Loop) else step
