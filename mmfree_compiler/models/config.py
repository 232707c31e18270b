"""The configuration of a MatMul-free LM, as `config.json` of a checkpoint states it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mmfree_compiler.errors import CheckpointError
from mmfree_compiler.models.json_file import read_json

MODEL_TYPE = "hgrn_bit"
NORM_EPS = 1e-6  # of BitLinear's own norm; the reference's fused layer uses no other (numerics 5)

# Bounds keep a hostile config from asking for a model that no machine can hold.
Width = Annotated[int, Field(gt=0, le=1 << 20)]
Count = Annotated[int, Field(gt=0, le=1024)]
Token = Annotated[int, Field(ge=0, lt=1 << 31)]
EndOfText = Token | list[Token] | None


class ModelConfig(BaseModel):
    """Shape of a MatMul-free LM; field names and defaults are the published ones.

    Keys of `config.json` that do not change the computation are ignored.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    model_type: Literal["hgrn_bit"]
    vocab_size: Width
    hidden_size: Width
    num_hidden_layers: Count
    num_heads: Count = 1
    expand_ratio: Count = 1
    hidden_ratio: Count = 4
    intermediate_size: Width | None = None
    hidden_act: Literal["swish", "silu"] = "swish"
    rms_norm_eps: Annotated[float, Field(gt=0, lt=1)] = NORM_EPS
    use_lower_bound: bool = True
    use_short_conv: bool = False
    share_conv_kernel: bool = True
    conv_size: Count = 4
    tie_word_embeddings: bool = False
    bos_token_id: Token | None = None
    eos_token_id: EndOfText = None
    initializer_range: Annotated[float, Field(gt=0, le=10)] = 0.02

    @model_validator(mode="after")
    def _heads_divide_the_state(self) -> Self:
        if self.state_size % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} does not divide {self.state_size}")
        return self

    @property
    def state_size(self) -> int:
        """Width I of the recurrence, `hidden_size * expand_ratio`."""
        return self.hidden_size * self.expand_ratio

    @property
    def intermediate(self) -> int:
        """Width of the GLU; if null, 2/3 of `hidden_ratio`, rounded up to 256 (numerics 11)."""
        if self.intermediate_size is not None:
            return self.intermediate_size
        width = int(self.hidden_size * self.hidden_ratio * 2 / 3)
        return 256 * math.ceil(width / 256)

    @classmethod
    def of(cls, hidden_size: int, num_hidden_layers: int, vocab_size: int, **others: Any) -> Self:
        """A config from its three sizes and any other field by name; raises as `parse` does."""
        sizes = {
            "hidden_size": hidden_size,
            "num_hidden_layers": num_hidden_layers,
            "vocab_size": vocab_size,
        }
        return cls.parse({"model_type": MODEL_TYPE} | sizes | others, "model shape")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read `config.json` at `path`. Raises CheckpointError on a missing file or wrong keys."""
        return cls.parse(read_json(path), str(path))

    @classmethod
    def parse(cls, keys: dict[str, Any], thing: str) -> Self:
        """Check the keys of a config. Raises CheckpointError that lists every wrong one."""
        if keys.get("model_type") != MODEL_TYPE:
            raise _foreign(thing, keys)
        try:
            return cls.model_validate(keys)
        except ValidationError as error:
            problems = [
                f"{'.'.join(map(str, e['loc'])) or 'keys'}: {e['msg'].lower()}"
                for e in error.errors()
            ]
            hint = "Write these keys as the published configuration does"
            raise CheckpointError(thing, "; ".join(problems), hint) from None


def _foreign(thing: str, keys: dict[str, Any]) -> CheckpointError:
    """The error of a config of another architecture, or of none."""
    kind = keys.get("model_type") or keys.get("architectures")
    if kind is None:
        cause = "names no model_type, so its architecture is unknown"
    else:
        cause = f"the architecture {ascii(kind)[:100]} is not supported"
    return CheckpointError(thing, cause, f"Supported: MatMul-free LMs, model_type {MODEL_TYPE!r}")


# The published models; their vocabulary has 32,000 tokens.
SHAPES: dict[str, ModelConfig] = {
    "370M": ModelConfig.of(1024, 24, 32000),
    "1.3B": ModelConfig.of(2048, 24, 32000),
    "2.7B": ModelConfig.of(2560, 32, 32000),
}
