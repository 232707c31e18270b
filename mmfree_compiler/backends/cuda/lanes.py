"""What the device keeps of each sequence while it decodes: a lane. Compiled kernels and run/ agree.

A lane has a record in each of three memories. CHOICES is written by the host and kept up by the
kernels, WORK is theirs alone, DRAWN is what the host reads: the tokens of the last RING steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.backends.cuda.strides import round_up
from mmfree_compiler.backends.decoding import Choices

AHEAD = 2  # steps that run while the host waits for a token
# State rows of a sequence: one for each step that may run, and the one that the oldest continues.
RING = AHEAD + 2
BLOCK = 1024  # logits of a program that reads them once
RADIX_BITS = 11  # of a key, that one round of a selection tells apart
BINS = 1 << RADIX_BITS

Fields = Mapping[str, tuple[str, tuple[int, ...]]]  # name -> the type of an element, the shape


def record(fields: Fields) -> np.dtype[Any]:
    """Fields one after another, each at a multiple of 16 bytes."""
    offsets, end = [], 0
    for kind, shape in fields.values():
        offsets.append(end)
        end = round_up(end + prod(shape) * np.dtype(kind).itemsize)
    formats = list(fields.values())
    return np.dtype(
        {"names": list(fields), "formats": formats, "offsets": offsets, "itemsize": end}
    )


def blocks(vocabulary: int) -> int:
    """Programs that read the logits of a token."""
    return -(-vocabulary // BLOCK)


def choices(vocabulary: int) -> np.dtype[Any]:
    """How the next token is chosen, and for which position.

    `temperature` 0 is greedy; `top_k` 0 keeps all tokens; `share` is top-p times SHARES. `rows` are
    the state rows that steps go through in turns, `step` the number of the next one. Bit i % 32 of
    word i // 32 of `seen` tells whether the penalty applies to token i.
    """
    fields: Fields = {
        "seed": ("<i8", ()),
        "position": ("<i8", ()),
        "temperature": ("<f4", ()),
        "penalty": ("<f4", ()),
        "top_k": ("<i4", ()),
        "share": ("<i4", ()),
        "step": ("<i4", ()),
        "rows": ("<i4", (RING,)),
        "seen": ("<i4", (-(-vocabulary // 32),)),
    }
    return record(fields)


def work(vocabulary: int) -> np.dtype[Any]:
    """What the kernels pass to each other.

    By block: `peaks` are the largest logits, `totals` the sums of exponentials relative to these,
    `bests` the largest scores, plain and scaled, `places` their tokens, `sums` those of weights. By
    token: `keys` have the order of the scores, `weights` are those of sampling. A selection has its
    sums in `bins`.
    """
    count = blocks(vocabulary)
    fields: Fields = {
        "peaks": ("<f4", (count,)),
        "totals": ("<f8", (count,)),
        "bests": ("<f4", (2, count)),
        "places": ("<i4", (2, count)),
        "sums": ("<i8", (count,)),
        "bins": ("<i8", (BINS,)),
        "keys": ("<i4", (vocabulary,)),
        "weights": ("<i4", (vocabulary,)),
    }
    return record(fields)


# A chosen token, its logit and the largest one, and the sum of exponentials relative to that.
DRAWN = record({"total": ("<f8", ()), "id": ("<i4", ()), "logit": ("<f4", ()), "peak": ("<f4", ())})


def chosen_by(
    settings: Choices, positions: NDArray[np.int64], rows: NDArray[np.int32]
) -> NDArray[Any]:
    """The `choices` of N lanes, which read tokens at `positions` (N,) and have `rows` (N, RING)."""
    count, vocabulary = settings.seen.shape
    made = np.zeros(count, choices(vocabulary))
    made["seed"], made["position"], made["rows"] = settings.seeds.view(np.int64), positions, rows
    made["temperature"], made["penalty"] = settings.divisors, settings.penalties
    made["top_k"], made["share"] = settings.top_k, settings.shares
    padded = np.pad(settings.seen, ((0, 0), (0, -vocabulary % 32)))
    made["seen"] = np.packbits(padded, 1, "little").view(np.int32)
    return made
