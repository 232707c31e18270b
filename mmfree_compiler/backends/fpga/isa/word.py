"""The 128 bits of an instruction: where each field is."""

from __future__ import annotations

from dataclasses import dataclass

WORD_BYTES = 16
UNITS = ("dma", "row", "tmm", "vec")  # each has a queue of its own; "seq" has none
COUNTS = ("one", "tokens", "sequences", "wanted")  # how many rows an instruction works on
NO_WAIT = 15  # of a unit's field of waits: do not wait for this unit


@dataclass(frozen=True)
class Field:
    """`width` bits from bit `low` on."""

    low: int
    width: int

    @property
    def most(self) -> int:
        """The largest number in it."""
        return (1 << self.width) - 1


_WIDTHS = {
    "opcode": 8,
    "rows": 2,
    "mode": 2,
    **{f"wait_{unit}": 4 for unit in UNITS},
    "n": 20,
    "m": 16,
    "dst": 16,
    "a": 16,
    "b": 16,
    "c": 16,
}


def _placed() -> dict[str, Field]:
    fields, low = {}, 0
    for name, width in _WIDTHS.items():
        fields[name] = Field(low, width)
        low += width
    assert low == 8 * WORD_BYTES
    return fields


FIELDS = _placed()
# Two fields side by side, for numbers that need more bits.
PAIRS = {"address": ("a", "b"), "length": ("n", "m")}


def most(field: str) -> int:
    """The largest number in a field or in a pair of fields."""
    width = sum(FIELDS[part].width for part in PAIRS.get(field, (field,)))
    return (1 << width) - 1
