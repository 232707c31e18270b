"""The golden cases: those of tests/golden, and those of ../shared/golden where it is there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from mmfree_compiler.models import BitLinear, MatMulFreeLM, load_checkpoint

HERE = Path(__file__).parent
BUNDLED = HERE / "golden"
SHARED = HERE.parent.parent / "shared" / "golden"
# Sums in another order move a logit by at most 5.3e-6, in an independent NumPy forward.
TOLERANCE = 1e-4
# A flipped activation code moves a logit by up to about this, of at most this share of the tokens.
FLIPPED = 0.3
FLIPPED_SHARE = 0.1
# How far from a .5 edge, in codes, rounding may decide a code (numerics 5).
EDGE = 1e-4
# y * a is at most 127 in size, so this is about two units in its last place: rarely more is needed.
NEAR = 1.5e-5


@dataclass(frozen=True)
class Sequence:
    """Tokens (B, T), the published logits (B, T, V), compared where `mask` (B, T) is 1, and the
    numbers of tokens of the calls that made them.
    """

    tokens: Tensor
    logits: Tensor
    mask: Tensor | None
    calls: list[int]


SEQUENCES = ("one token", "whole", "padded", "stepped")


@dataclass(frozen=True)
class GoldenCase:
    """One folder; tests/golden/README.md says what its tensors are."""

    folder: Path

    def __str__(self) -> str:
        return self.folder.name

    @cached_property
    def golden(self) -> dict[str, Tensor]:
        return load_file(self.folder / "golden.safetensors")

    @cached_property
    def taps(self) -> dict[str, Tensor]:
        return load_file(self.folder / "taps.safetensors")

    @cached_property
    def ternary(self) -> dict[str, Tensor]:
        return load_file(self.folder / "ternary.safetensors")

    def model(self) -> MatMulFreeLM:
        return load_checkpoint(self.folder)

    def sequence(self, key: str) -> Sequence:
        """One of SEQUENCES."""
        golden, mask = self.golden, self.golden["attention_mask_pad"]
        one, two = golden["input_ids_b1"], golden["input_ids_b2"]
        stepped = torch.cat([golden["prefill16_logits"], golden["decode_logits"]], 1)
        return {
            "one token": Sequence(one, golden["logits_b1"], None, [1]),
            "whole": Sequence(two, golden["logits_b2"], None, [33]),
            "padded": Sequence(two, golden["logits_pad"], mask, [33]),
            "stepped": Sequence(two[:, :24], stepped, None, [16, *[1] * 8]),
        }[key]

    def errors(self, logits: Tensor, key: str) -> Tensor:
        """The largest error (B, T) of each token's logits; 0 where there is padding."""
        sequence = self.sequence(key)
        errors = (logits - sequence.logits).abs().amax(-1)
        return errors if sequence.mask is None else errors * sequence.mask

    def assert_logits(
        self, logits: Tensor, key: str, tokens: Tensor, mask: Tensor | None = None
    ) -> None:
        """Compare logits (B, T, V) with `golden[key]`, closely where no code sits on an edge.

        tokens (B, T) are those that the logits follow, from a zero state; a mask (B, T) leaves out
        the positions where it is 0.
        """
        difference = (logits - self.golden[key]).abs().amax(-1)
        compared = torch.ones_like(difference, dtype=torch.bool) if mask is None else mask.bool()
        assert difference[compared].max() <= FLIPPED
        assert (difference[compared & steady_positions(self, tokens, mask)] < TOLERANCE).all()


@torch.no_grad()
def steady_positions(case: GoldenCase, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
    """(B, T) bool: where neither a token nor one before it has an activation on a rounding edge.

    There, and only there, logits of two correct implementations may be compared closely.
    """
    risky = torch.zeros(tokens.shape, dtype=torch.bool)

    def look(module: BitLinear, inputs: tuple[Tensor], _: Tensor) -> None:
        y = module.norm(inputs[0])
        scaled = y * (127 / y.abs().amax(-1, keepdim=True).clamp(min=1e-5))
        risky.logical_or_((scaled.frac().abs() - 0.5).abs().amin(-1) < NEAR)

    model = case.model()
    for module in model.modules():
        if isinstance(module, BitLinear):
            module.register_forward_hook(look)
    model(tokens, mask=mask)
    return ~(risky.cumsum(1) > 0)


@cache
def golden_cases(*files: str) -> list[GoldenCase]:
    """Every case that has all `files`, such as "taps"; the shared copy where there are two."""
    folders = {f.name: f for root in (BUNDLED, SHARED) if root.is_dir() for f in root.iterdir()}
    wanted = ["config.json", "golden.safetensors", *(f"{name}.safetensors" for name in files)]
    return [
        GoldenCase(folder)
        for _, folder in sorted(folders.items())
        if all((folder / name).is_file() for name in wanted)
        and '"hgrn_bit"' in (folder / "config.json").read_text()
    ]
