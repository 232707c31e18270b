"""How ternary weights lie in weights.bin: four codes per byte, row after row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

SHIFTS = np.array([0, 2, 4, 6], np.uint8)


@dataclass(frozen=True)
class FourCodes:
    """Byte j of a weight holds the codes 4j to 4j + 3, code + 1 in two bits each."""

    name: str = "four_codes"

    def pack(self, codes: Any) -> Any:
        """Codes (N, K) int8 in {-1, 0, 1} -> uint8 (bytes,)."""
        digits = (codes.reshape(-1) + 1).astype(np.uint8)
        digits = np.pad(digits, (0, -digits.size % 4)).reshape(-1, 4)
        return np.bitwise_or.reduce(digits << SHIFTS, axis=1)

    def unpack(self, part: Any, shape: tuple[int, ...]) -> Any:
        """The inverse of `pack`."""
        digits = part.reshape(-1, 1) >> SHIFTS & 3
        return digits.reshape(-1)[: int(np.prod(shape))].astype(np.int8).reshape(shape) - 1


FOUR_CODES = FourCodes()
