"""MatMulFreeLM: embedding, blocks of MLGRU and GLU, ternary head."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from mmfree_compiler.errors import InputError
from mmfree_compiler.models.config import ModelConfig
from mmfree_compiler.models.modules import GLU, MLGRU, BitLinear, LayerState, RMSNorm
from mmfree_compiler.notes import Note

# One LayerState per layer; see modules.LayerState.
State = list[LayerState]


class Block(nn.Module):
    """One layer: `x + mixer(norm(x))`, then `x + glu(norm(x))` (numerics 7 and 8)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attn_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attn = MLGRU(config)
        self.mlp_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = GLU(config.hidden_size, config.intermediate)

    def forward(
        self, x: Tensor, state: LayerState | None, lower_bound: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, LayerState]:
        mixed, state = self.attn(self.attn_norm(x), state, lower_bound, mask)
        x = x + mixed
        return x + self.mlp(self.mlp_norm(x)), state


class Backbone(nn.Module):
    """Everything below the head; its parameters are the published `model.*`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        # Uniform: normal_ on the meta device imports torch's compiler, which takes 2 s.
        table = torch.empty(config.vocab_size, config.hidden_size)
        nn.init.uniform_(table, -config.initializer_range, config.initializer_range)
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size, _weight=table)
        if config.use_lower_bound:
            shape = (config.num_hidden_layers, config.state_size)
            self.lower_bounds = nn.Parameter(torch.zeros(shape))
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def effective_lower_bounds(self) -> list[Tensor] | list[None]:
        """One (I,) row per layer; the first is zero, which is the same as no bound (numerics 6)."""
        if not hasattr(self, "lower_bounds"):
            return [None] * len(self.layers)
        share = self.lower_bounds.float().softmax(0)
        return list((share.cumsum(0) - share[0]).unbind(0))

    def forward(
        self, tokens: Tensor, state: State | None, mask: Tensor | None
    ) -> tuple[Tensor, State]:
        x = self.embeddings(tokens).float()
        bounds = self.effective_lower_bounds()
        after: State = []
        for index, layer in enumerate(self.layers):
            x, last = layer(x, state[index] if state else None, bounds[index], mask)
            after.append(last)
        return self.norm(x), after


class MatMulFreeLM(nn.Module):
    """The MatMul-free language model (arXiv 2406.02528, `hgrn_bit`).

    `tokenizer_path` is the tokenizer.json of the checkpoint that it was loaded from, if any;
    `notes` say what was not followed as it is stored there.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.tokenizer_path: Path | None = None
        self.notes: tuple[Note, ...] = ()
        self.model = Backbone(config)
        self.lm_head = BitLinear(config.hidden_size, config.vocab_size)
        self.tie()

    def tie(self) -> None:
        """Give a tied head the embedding as its weight."""
        if self.config.tie_word_embeddings:
            self.lm_head.weight = cast(nn.Parameter, self.model.embeddings.weight)

    def forward(
        self, tokens: Tensor, state: State | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """tokens (B, T) int64 -> logits (B, T, V) fp32 and the state after the last token.

        `state` continues an earlier call's sequences. `mask` (B, T) is 0 at padding, else 1.
        Raises InputError on padding that is not on the left: the state would decay (numerics 12).
        """
        x, after = self.model(tokens, state, None if mask is None else _left_padding(mask))
        return self.lm_head(x), after


def _left_padding(mask: Tensor) -> Tensor:
    """The mask as (B, T, 1) fp32, checked to mask nothing after a token."""
    if bool((mask[:, 1:] < mask[:, :-1]).any()):
        raise InputError("mask", "masks positions after a token", "Pad on the left")
    return mask.to(torch.float32).unsqueeze(-1)
