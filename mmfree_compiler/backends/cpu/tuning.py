"""Settings of kernels: they change how fast a kernel is, and none of its results.

`mmfree tune` (tune.py) finds those of a model's shapes on a CPU by trying; `compile` takes what was
found on this CPU for these shapes, else each instruction set's own.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass

from mmfree_compiler.backends.cpu import cache
from mmfree_compiler.errors import ToolchainError
from mmfree_compiler.program import Program
from mmfree_compiler.runtime.cpu_features import processor


@dataclass(frozen=True)
class Tuning:
    """`tokens`: the most tokens of a chunk that vectors take at once, below 16 (see isa.BLOCKS).

    `prefetch`: how many blocks of weights ahead (64 bytes each) are asked for.
    """

    tokens: int
    prefetch: int = 128


# What a search tries.
CANDIDATES: dict[str, tuple[int, ...]] = {
    "prefetch": (0, 32, 64, 128, 256),
    "tokens": (2, 4, 6, 8, 12, 15),
}


def find(program: Program, variant: str) -> Tuning | None:
    """What `keep` kept; None when there is none, or of another version's settings."""
    found = cache.load(_key(program, variant))
    with suppress(ValueError, TypeError, RecursionError):  # no JSON, or other settings
        tuning = Tuning(**json.loads(found or b""))
        if all(value in CANDIDATES[name] for name, value in asdict(tuning).items()):
            return tuning
    return None


def keep(program: Program, variant: str, tuning: Tuning) -> None:
    """Have compilations of the same shapes for `variant` on this CPU take `tuning`.

    Raises ToolchainError when the cache does not hold it.
    """
    key, text = _key(program, variant), json.dumps(asdict(tuning)).encode()
    cache.store(key, text)
    if cache.load(key) != text:
        thing, cause = f"cache folder {cache.folder('objects')}", "cannot keep the settings"
        raise ToolchainError(thing, cause, "Make room, or set XDG_CACHE_HOME to another folder")


def _key(program: Program, variant: str) -> str:
    """This CPU, the variant, and what a step reads: the shapes of weights and how they lie."""
    weights = [node.inputs[2] for node in program.nodes() if node.op == "ternary_linear"]
    found = [program.constants[name] for name in weights if name]
    shapes = Counter((c.shape, c.layout, len(c.parts)) for c in found)
    return cache.key("tuning", processor(), variant, sorted(shapes.items()))
