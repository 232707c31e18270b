"""The GPUs that kernels are compiled for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """A usual card of an architecture: bytes per second that its memory delivers at best, and dense
    int8 operations per second of its tensor cores, of which a multiply-add is two.

    Both are NVIDIA's figures, from the card's data sheet or, for sm_120, "NVIDIA RTX Blackwell GPU
    Architecture". NVIDIA states no rate for dp4a.
    """

    name: str
    memory: float
    int8: float


@dataclass(frozen=True)
class Arch:
    """`name` is as the CUDA tools spell it, `shared` the most bytes of shared memory of a program.

    See the table of technical specifications in the CUDA C++ Programming Guide.
    """

    name: str
    gpus: str
    shared: int
    card: Card

    @property
    def capability(self) -> tuple[int, int]:
        """The compute capability: (9, 0) for "sm_90"."""
        number = int(self.name.removeprefix("sm_"))
        return divmod(number, 10)

    @property
    def has_dependent_launch(self) -> bool:
        """Whether a kernel may start before the one in front of it has ended."""
        return self.capability >= (9, 0)

    @property
    def has_wgmma(self) -> bool:
        """Whether tensor cores have the instructions that Hopper alone has."""
        return self.capability == (9, 0)


ARCHS = {
    arch.name: arch
    for arch in (
        Arch("sm_80", "A100", 163 << 10, Card("A100 80GB SXM", 2039e9, 624e12)),
        Arch("sm_86", "RTX 30, A10, A40", 99 << 10, Card("A10", 600e9, 250e12)),
        Arch("sm_89", "RTX 40, L4, L40", 99 << 10, Card("L40", 864e9, 362e12)),
        Arch("sm_90", "H100, H200", 227 << 10, Card("H100 SXM", 3350e9, 1979e12)),
        Arch("sm_100", "B200", 227 << 10, Card("B200", 8000e9, 4500e12)),
        Arch("sm_120", "RTX 50", 99 << 10, Card("RTX 5090", 1792e9, 838e12)),
    )
}
