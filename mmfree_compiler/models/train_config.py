"""What a training run depends on, within limits that a machine can take."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Literal

from mmfree_compiler.errors import InputError
from mmfree_compiler.models.checkpoint import expected_shapes
from mmfree_compiler.models.config import ModelConfig
from mmfree_compiler.models.tokenizer import END_OF_TEXT_ID, VOCAB_SIZE
from mmfree_compiler.wording import bounds, given

PRECISIONS = ("float32", "bfloat16")
_MANY = 10**9  # steps
_LARGE = 1e38  # about the largest float32
# The least and the largest value of each number.
LIMITS: dict[str, tuple[float, float]] = {
    "hidden_size": (1, 1 << 20),
    "layers": (1, 1024),
    "steps": (1, _MANY),
    "batch": (1, 1 << 20),
    "length": (1, 1 << 20),
    "learning_rate": (0, _LARGE),
    "warmup": (0, _MANY),
    "weight_decay": (0, _LARGE),
    "clip": (0, _LARGE),
    "seed": (0, 10**18),  # torch's generators take a little more
    "evaluate_every": (1, _MANY),
    "evaluate_tokens": (1, _MANY),
    "save_every": (1, _MANY),
}
# Bytes per parameter: in fp32 itself, its gradient and AdamW's two means.
_BYTES_PER_PARAMETER = 16


@dataclass(frozen=True)
class TrainConfig:
    """Everything that a run depends on besides its corpus and the number of threads.

    The learning rate is large because ternary weights change only when the stored weights cross a
    threshold (arXiv 2406.02528, 4 and appendix). `precision` is that of the matrix products while
    training.
    """

    hidden_size: int = 256
    layers: int = 4
    steps: int = 5000
    batch: int = 8
    length: int = 256
    learning_rate: float = 3e-3
    warmup: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0
    seed: int = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    evaluate_every: int = 250
    evaluate_tokens: int = 32768  # of the held-out text
    save_every: int = 250

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name in LIMITS:
                _check(field.name, getattr(self, field.name), type(field.default))
        if self.precision not in PRECISIONS:
            hint = f"Known: {', '.join(PRECISIONS)}"
            raise InputError("precision", f"{self.precision!r} is unknown", hint)

    @property
    def model(self) -> ModelConfig:
        """The shape of the byte-level model. Raises CheckpointError if there is none."""
        shape = self.hidden_size, self.layers, VOCAB_SIZE
        return ModelConfig.of(*shape, eos_token_id=END_OF_TEXT_ID)


def _check(name: str, value: object, kind: type) -> None:
    """Raise InputError unless `value` is a number of `kind` within its limits, which NaN is not."""
    low, high = LIMITS[name]
    hint = f"Choose {bounds(low, high)}"
    if not isinstance(value, Real if kind is float else Integral):
        kinds = {int: "a whole number", float: "a number"}
        raise InputError(name, f"{given(value)} is not {kinds[kind]}", hint)
    if not low <= value <= high:  # type: ignore[operator]
        raise InputError(name, f"{given(value)} is out of range", hint)


def check_memory(config: TrainConfig) -> None:
    """Raise InputError if this machine's memory cannot hold the run.

    What is counted is the least that it takes: parameters with what AdamW keeps of each, and of
    the activations one row of each layer and the logits.
    """
    parameters = sum(map(math.prod, expected_shapes(config.model).values()))
    tokens = config.batch * config.length
    activations = 4 * tokens * (config.layers * config.hidden_size + VOCAB_SIZE)
    needed = _BYTES_PER_PARAMETER * parameters + activations
    present = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > present:
        cause = f"needs at least {needed / 1e9:,.1f} GB, this machine has {present / 1e9:,.1f} GB"
        thing = f"a model {config.hidden_size:,} wide with {config.layers:,} layers"
        thing += f", {tokens:,} bytes per step"
        raise InputError(thing, cause, "Lower `hidden_size`, `layers`, `batch` or `length`")
