"""The n-gram and compressor baselines against slow and obvious ones."""

from __future__ import annotations

import math
import zlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmfree_compiler.models.baselines import (
    COMPRESSORS,
    compressed_bits_per_byte,
    ngram_bits_per_byte,
)
from mmfree_compiler.models.tokenizer import END_OF_TEXT_ID, VOCAB_SIZE

symbols = st.sampled_from([0, 1, 97, 255, END_OF_TEXT_ID])


def witten_bell(seen: list[int], context: list[int], symbol: int) -> float:
    """The recursion as it is written."""
    lower = witten_bell(seen, context[1:], symbol) if context else 1 / VOCAB_SIZE
    n = len(context)
    after = [seen[i + n] for i in range(len(seen) - n) if seen[i : i + n] == context]
    different = len(set(after))
    if not after:
        return lower
    return (after.count(symbol) + different * lower) / (len(after) + different)


@given(
    seen=st.lists(symbols, min_size=8, max_size=40),
    asked=st.lists(symbols, min_size=8, max_size=12),
    order=st.integers(0, 3),
)
def test_ngrams(seen: list[int], asked: list[int], order: int) -> None:
    asked = [*asked, 97]  # a byte to divide by
    bits = sum(
        -math.log2(witten_bell(seen, asked[i - order : i], asked[i]))
        for i in range(order, len(asked))
    )
    wanted = bits / sum(symbol != END_OF_TEXT_ID for symbol in asked[order:])
    found = ngram_bits_per_byte(torch.tensor(seen), torch.tensor(asked), order)
    assert found == pytest.approx(wanted)


@pytest.mark.parametrize("name", COMPRESSORS)
def test_compressors(name: str) -> None:
    text = torch.arange(256).repeat(8)
    alone = compressed_bits_per_byte(name, text)
    assert alone == 8 * len(COMPRESSORS[name](bytes(range(256)) * 8)) / 2048
    assert compressed_bits_per_byte(name, text, after=text) < alone / 2


def test_end_of_text_is_a_zero_byte_that_is_not_counted() -> None:
    text = torch.tensor([97, END_OF_TEXT_ID])
    assert compressed_bits_per_byte("gzip -9", text) == 8 * len(zlib.compress(b"a\0", 9, wbits=31))
