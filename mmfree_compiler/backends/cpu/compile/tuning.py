"""Settings of kernels, which change the speed of a kernel but not its results.

`mmfree tune` (tune.py) finds the best ones for a model's shapes on a CPU by trying. `compile` uses
those found on this CPU for the same shapes, or else the defaults of each instruction set.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass

from mmfree_compiler.backends.cpu.features import processor
from mmfree_compiler.building import cache
from mmfree_compiler.program import Program


@dataclass(frozen=True)
class Tuning:
    """`tokens`: the most tokens of a chunk that vectors take at once, below 16 (see isa.BLOCKS).

    `prefetch`: how many blocks of weights (64 bytes each) to prefetch ahead; 0 for none.
    """

    tokens: int
    prefetch: int = 128


# The values that a search tries.
CANDIDATES: dict[str, tuple[int, ...]] = {
    "prefetch": (0, 32, 64, 128, 256),
    "tokens": (2, 4, 6, 8, 12, 15),
}


def find(program: Program, variant: str) -> Tuning | None:
    """The settings that `keep` stored for this CPU; None if there are none, or outdated ones.

    `program` reads the weights in the variant's layout.
    """
    found = cache.load(_key(program, variant))
    with suppress(ValueError, TypeError, RecursionError):  # not JSON, or other settings
        tuning = Tuning(**json.loads(found or b""))
        if all(value in CANDIDATES[name] for name, value in asdict(tuning).items()):
            return tuning
    return None


def keep(program: Program, variant: str, tuning: Tuning) -> None:
    """Store `tuning` for compilations of the same shapes for `variant` on this CPU.

    Raises ToolchainError if the cache cannot store it.
    """
    cache.keep(_key(program, variant), json.dumps(asdict(tuning)).encode(), "the settings")


def _key(program: Program, variant: str) -> str:
    """The key for this CPU, the variant, and the shapes and layouts of the weights."""
    weights = [node.inputs[2] for node in program.nodes() if node.op == "ternary_linear"]
    found = [program.constants[name] for name in weights if name]
    shapes = Counter((c.shape, c.layout.name, len(c.parts)) for c in found)
    return cache.key("tuning", processor(), variant, sorted(shapes.items()))
