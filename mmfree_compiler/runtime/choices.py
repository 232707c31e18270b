"""The settings of generations as arrays, for launchers that choose tokens themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmfree_compiler.backends.decoding import Choices
from mmfree_compiler.runtime.drawing import share
from mmfree_compiler.runtime.next_token import Flags, divisor
from mmfree_compiler.runtime.sampling import Sampling


def choices(samplings: Sequence[Sampling], seeds: Sequence[int], seen: Flags) -> Choices:
    """Those of N sequences; `seen` (N, V) marks the tokens that the penalty applies to."""
    heats = [divisor(x.temperature) if x.temperature else 0 for x in samplings]
    # As many tokens as there are, or more, are all of them.
    kept = [x.top_k if x.top_k < seen.shape[1] else 0 for x in samplings]
    return Choices(
        divisors=np.array(heats, np.float32),
        penalties=np.array([x.repetition_penalty for x in samplings], np.float32),
        top_k=np.array(kept, np.int32),
        shares=np.array([share(x.top_p) for x in samplings], np.int32),
        seeds=np.array(seeds, np.uint64),
        seen=seen,
    )
