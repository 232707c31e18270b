"""The figures of a byte-level checkpoint's model card.

`python -m mmfree_compiler.models.card FOLDER` measures the saved checkpoint and the baselines on
Python's own text, and prints Markdown.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from mmfree_compiler.models.baselines import (
    COMPRESSORS,
    compressed_bits_per_byte,
    ngram_bits_per_byte,
)
from mmfree_compiler.models.checkpoint import load_checkpoint
from mmfree_compiler.models.corpus import Corpus, python_corpus
from mmfree_compiler.models.training import bits_per_byte

ORDERS = range(1, 6)


def measures(folder: Path, corpus: Corpus) -> Iterator[tuple[str, float]]:
    """(name, bits per byte of the held-out text) of the checkpoint, then of every baseline."""
    yield "this checkpoint", bits_per_byte(load_checkpoint(folder), corpus.held_out)
    for order in ORDERS:
        name = f"order-{order} counts, interpolated (Witten-Bell)"
        yield name, ngram_bits_per_byte(corpus.train, corpus.held_out, order)
    for name in COMPRESSORS:
        yield f"{name}, held-out text alone", compressed_bits_per_byte(name, corpus.held_out)
    for name in COMPRESSORS:
        bits = compressed_bits_per_byte(name, corpus.held_out, corpus.train)
        yield f"{name}, after the training text", bits


def main(folder: Path) -> None:
    """Print the table."""
    corpus = Corpus.of(python_corpus())
    sizes = f"{len(corpus.train):,} tokens to train, {len(corpus.held_out):,} held out"
    print(f"{sizes}, SHA-256 {corpus.digest}\n\n| model | bits per byte |\n| --- | --- |")
    for name, bits in measures(folder, corpus):
        print(f"| {name} | {bits:.3f} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
