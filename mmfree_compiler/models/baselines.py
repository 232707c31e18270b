"""Baselines for a language model of bytes: counts of n-grams, and general compressors."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmfree_compiler.models.tokenizer import END_OF_TEXT_ID, VOCAB_SIZE

Keys = NDArray[np.int64]
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip -9": lambda text: gzip.compress(text, 9),
    "bzip2 -9": lambda text: bz2.compress(text, 9),
    "xz -9e": lambda text: lzma.compress(text, preset=9 | lzma.PRESET_EXTREME),
}


def ngram_bits_per_byte(train: Tensor, held_out: Tensor, order: int) -> float:
    """Bits per byte of `held_out` (N,) under counts of `train` with `order` tokens of context.

    Interpolated Witten-Bell smoothing: with N the count of a context and D the number of different
    tokens seen after it, `p_n(x) = (count(x) + D * p_{n-1}(x)) / (N + D)`; uniform below order 0.
    Predicts end-of-text tokens too and divides by bytes, as `training.bits_per_byte` does.
    """
    seen, asked = train.numpy().astype(np.int64), held_out.numpy().astype(np.int64)
    probability = np.full(len(asked) - order, 1 / VOCAB_SIZE)
    for n in range(order + 1):
        probability = _interpolate(seen, asked, n, order, probability)
    targets = held_out[order:]
    return float(-np.log2(probability).sum()) / int((targets != END_OF_TEXT_ID).sum())


def _interpolate(
    seen: Keys, asked: Keys, n: int, order: int, lower: NDArray[np.float64]
) -> NDArray[np.float64]:
    """One step of the recursion for every asked token except the first `order`."""
    grams, counts = np.unique(_windows(seen, n + 1), return_counts=True)
    contexts, first = np.unique(grams // VOCAB_SIZE, return_index=True)
    totals = np.add.reduceat(counts, first)
    different = np.diff(np.append(first, len(grams)))
    wanted = _windows(asked, n + 1)[order - n :]
    count = _look_up(grams, counts, wanted)
    total = _look_up(contexts, totals, wanted // VOCAB_SIZE)
    kinds = _look_up(contexts, different, wanted // VOCAB_SIZE)
    known = total > 0
    mixed = (count + kinds * lower) / np.maximum(total + kinds, 1)
    return np.where(known, mixed, lower)


def _windows(tokens: Keys, length: int) -> Keys:
    """Every run of `length` tokens as one number in base VOCAB_SIZE; 7 fit into 63 bits."""
    keys = np.zeros(len(tokens) - length + 1, dtype=np.int64)
    for n in range(length):
        keys = keys * VOCAB_SIZE + tokens[n : n + len(keys)]
    return keys


def _look_up(keys: Keys, values: NDArray[np.int64], wanted: Keys) -> NDArray[np.int64]:
    """The value of each wanted key in sorted `keys`, 0 where it is absent."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)


def compressed_bits_per_byte(
    compressor: str, held_out: Tensor, after: Tensor | None = None
) -> float:
    """Bits per byte of `held_out` in one of COMPRESSORS, end-of-text written as a zero byte.

    With `after`, what appending `held_out` adds to the compressed size of that text.
    """
    compress, text = COMPRESSORS[compressor], _text(held_out)
    if after is None:
        size = len(compress(text))
    else:
        size = len(compress(_text(after) + text)) - len(compress(_text(after)))
    return 8 * size / int((held_out != END_OF_TEXT_ID).sum())


def _text(tokens: Tensor) -> bytes:
    return torch.where(tokens == END_OF_TEXT_ID, 0, tokens).to(torch.uint8).numpy().tobytes()
