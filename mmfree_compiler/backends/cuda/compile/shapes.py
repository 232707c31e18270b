"""How much of a launch one program makes, and the plans that use which shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mmfree_compiler.backends.cuda.archs import Arch
from mmfree_compiler.backends.cuda.strides import CHUNK, OUTPUTS, power_of_two

_LARGEST_BLOCK = 1024
_FEWEST_COLUMNS = 8


@dataclass(frozen=True)
class Shape:
    """`tokens` x `columns` for a program of `warps` warps.

    `function`, of the file of its name in kernels/, multiplies `block_k` columns of a weight at a
    time, and loads `stages` times that ahead. It is for kernels of at most `products`. A scan loads
    `stages` blocks of `block_tokens` tokens ahead. A program takes `shared` bytes of shared memory
    at least, so that few are on one multiprocessor; for products `share` are on each.
    """

    tokens: int
    columns: int
    warps: int
    function: str = "gemv"
    block_k: int = 256
    stages: int = 3
    products: int = 1000
    block_tokens: int = 1
    shared: int = 0
    share: int = 1

    def fitted(self, k: int) -> Shape:
        """The shape for rows of k codes: that in which a gemv loads 16 bytes at a time."""
        if self.function != "gemv":
            return self
        block_k = min(_LARGEST_BLOCK, max(256, power_of_two(k)))
        return replace(self, block_k=block_k, columns=2048 * self.warps // block_k)

    def spread(self, width: int) -> Shape:
        """The shape in which `columns` programs make `width` columns; a program makes a few."""
        return replace(self, columns=max(_FEWEST_COLUMNS, -(-width // self.columns)))

    @property
    def plain(self) -> Shape:
        """The shape in Triton's own language."""
        return replace(self, function="gemm") if self.function == "wgmma" else self

    @property
    def name(self) -> str:
        """Tells kernels of one part apart."""
        return f"{self.tokens}x{self.columns}"

    def programs(self, width: int, tokens: int) -> int:
        """Programs that make `width` columns of `tokens` tokens."""
        return -(-width // self.columns) * -(-tokens // self.tokens)

    def sizes(self, k: int) -> str:
        """The last arguments of `function`, for rows of k codes."""
        return f"{k}, {self.tokens}, {self.columns}, {self.block_k}, ASM"


ROWS = Shape(1, 1, 4)


@dataclass(frozen=True)
class Sizes:
    """The shapes of kernels, and what chooses among them; `mmfree tune` varies them (tuning.py).

    Products take the first of `gemm` that has `fewest_programs` times its `share`, so that they
    fill a GPU: large tiles do more with what they load. Measured on an H200.
    """

    scan: Shape = Shape(1, 32, 1, stages=4, block_tokens=32, shared=112 << 10)
    fused: Shape = Shape(1, 128, 8)
    gemv: Shape = Shape(1, 32, 4)
    gemm: tuple[Shape, ...] = (
        Shape(64, 64, 8, "gemm"),
        Shape(32, 64, 4, "gemm"),
        Shape(16, 32, 2, "gemm", block_k=512),
    )
    fewest_programs: int = 120  # a GPU has about as many multiprocessors


# wgmma takes 64 columns in four warps.
_HOPPER = Sizes(
    gemm=(
        Shape(128, 64, 4, "wgmma", stages=3, products=2, share=2),
        Shape(64, 64, 4, "wgmma", stages=3),
        Shape(32, 64, 4, "wgmma", block_k=512, stages=4),
        Shape(16, 64, 4, "wgmma", block_k=512, stages=4),
    )
)


def sizes_of(arch: Arch) -> Sizes:
    """The sizes of an architecture's kernels."""
    return _HOPPER if arch.has_wgmma else Sizes()


@dataclass(frozen=True)
class PlanShape:
    """A plan for calls of at most `tokens` tokens: see facts.Plan.

    `gemm`: products by tensor cores. `gluon`: in that language where it is faster, as long as one
    token needs whole rows.
    """

    tokens: int
    together: bool
    gemm: bool = True
    gluon: bool = True
    sizes: Sizes = Sizes()

    @property
    def fused(self) -> bool:
        """Whether kernels may make rows and columns at once: see schedule."""
        return self.gluon and self.tokens == 1

    def tile(self, width: int, depths: Sequence[int], few: bool = False) -> Shape:
        """The shape that makes `width` columns; `depths` are the columns of products' weights.

        `few`: for few of the tokens.
        """
        sizes = self.sizes
        if not self.gemm:
            return sizes.gemv.fitted(max(depths)) if depths else sizes.gemv
        fits = [x for x in sizes.gemm if x.tokens <= self.tokens and len(depths) <= x.products]
        least = sizes.fewest_programs
        full = [x for x in fits if x.programs(width, self.tokens) >= least * x.share]
        found = fits[-1] if few else [*full, fits[-1]][0]
        return found if self.gluon else found.plain


# A call has at most as many tokens as one of these: tiles of long calls fill a GPU more evenly, but
# their rows take more memory.
CHUNKS = (CHUNK // 2, CHUNK)

# In order of preference: the first that takes a call's tokens. At most OUTPUTS sequences decode at
# once; a call with more of them, of one token each, has some that need no outputs.
PLANS = (
    PlanShape(1, together=False, gemm=False),
    PlanShape(16, together=False),
    PlanShape(64, together=False),
    PlanShape(OUTPUTS, together=False),
    PlanShape(16, together=True),
    PlanShape(64, together=True),
    PlanShape(256, together=True),
    PlanShape(512, together=True),
    *(PlanShape(chunk, together=True) for chunk in CHUNKS),
)
