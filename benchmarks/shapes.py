"""Sizes of a model, and the multiply-adds of a token. Does not need torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """A MatMul-free LM's sizes; the fields are ModelConfig's under shorter names."""

    name: str
    hidden: int
    layers: int
    intermediate: int
    vocabulary: int

    @classmethod
    def of(cls, name: str) -> Shape:
        """The published shape `name`, such as "370M". Raises CheckpointError on others."""
        from mmfree_compiler.errors import CheckpointError
        from mmfree_compiler.models.config import SHAPES

        config = SHAPES.get(name)
        if config is None:
            raise CheckpointError(f"shape {name!r}", "unknown", f"Known: {', '.join(SHAPES)}")
        sizes = (config.hidden_size, config.num_hidden_layers, config.intermediate)
        return cls(name, *sizes, config.vocab_size)

    @property
    def layer_matrices(self) -> tuple[tuple[int, int], ...]:
        """(N, K) of a layer's ternary weights: i, f, g, o, gate with up, down."""
        d, ff = self.hidden, self.intermediate
        return (d, d), (d, d), (d, d), (d, d), (2 * ff, d), (d, ff)

    @property
    def body_weights(self) -> int:
        """Ternary weights of all layers: the multiply-adds of a token without the head."""
        return self.layers * sum(n * k for n, k in self.layer_matrices)

    @property
    def head_weights(self) -> int:
        """Ternary weights of the head, which runs for tokens whose logits are wanted."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All of a checkpoint's: ternary weights, the embedding, norms and lower bounds."""
        # Input norms of the six BitLinears, attn_norm, mlp_norm and g_norm, and the lower bound.
        vectors = sum(k for _, k in self.layer_matrices) + 4 * self.hidden
        ends = 2 * self.head_weights + 2 * self.hidden
        return self.body_weights + self.layers * vectors + ends
