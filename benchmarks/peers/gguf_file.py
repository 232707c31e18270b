"""A GGUF of random ternary weights for llama.cpp's architecture `bitnet`.

Its matrices have our model's shapes: q, k, v, o for i, f, g, o, then gate, up and down. The head
is the embedding, in the same ternary type.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from benchmarks.shapes import Shape

HEAD_WIDTH = 64
BLOCK = 256  # weights per block, for both ternary types
FILE_TYPES = {
    "TQ1_0": gguf.LlamaFileType.MOSTLY_TQ1_0,
    "TQ2_0": gguf.LlamaFileType.MOSTLY_TQ2_0,
}


def write_random(path: Path, shape: Shape, kind: str) -> None:
    """Write `shape` with weights of type `kind`, "TQ1_0" or "TQ2_0"; whole or not at all.

    Raises ValueError when a width is not a multiple of the block of 256 weights.
    """
    if shape.hidden % BLOCK or shape.intermediate % BLOCK:
        raise ValueError(f"shape {shape.name}: widths are not multiples of {BLOCK}")
    partial = path.with_suffix(".partial")
    writer = gguf.GGUFWriter(partial, "bitnet")
    _add_keys(writer, shape, kind)
    _add_tensors(writer, shape, gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(path)


def _add_keys(writer: gguf.GGUFWriter, shape: Shape, kind: str) -> None:
    heads = shape.hidden // HEAD_WIDTH
    writer.add_name(f"random {shape.name}")
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_context_length(2048)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.intermediate)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(HEAD_WIDTH)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_tokenizer_model("no_vocab")


def _add_tensors(writer: gguf.GGUFWriter, shape: Shape, kind: gguf.GGMLQuantizationType) -> None:
    """All layers are equal, but each has its own bytes in the file: no cache can tell."""
    d, ff = shape.hidden, shape.intermediate
    matrices = {
        **dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (d, d)),
        **dict.fromkeys(("ffn_gate", "ffn_up"), (ff, d)),
        "ffn_down": (d, ff),
    }
    norms = {"attn_norm": d, "attn_sub_norm": d, "ffn_norm": d, "ffn_sub_norm": ff}
    head = _ternary(shape.vocabulary, d, kind)
    writer.add_tensor("token_embd.weight", head, raw_dtype=kind)
    writer.add_tensor("output_norm.weight", np.ones(d, np.float32))
    for layer in range(shape.layers):
        for name, size in matrices.items():
            weight = _ternary(*size, kind)
            writer.add_tensor(f"blk.{layer}.{name}.weight", weight, raw_dtype=kind)
        for name, width in norms.items():
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(width, np.float32))


@cache
def _ternary(rows: int, columns: int, kind: gguf.GGMLQuantizationType) -> Any:
    """Quantized (rows, columns): uint8, as the writer takes it."""
    digits = np.random.default_rng(0).integers(-1, 2, size=(rows, columns), dtype=np.int8)
    return gguf.quants.quantize(digits.astype(np.float32) * np.float32(0.02), kind)
