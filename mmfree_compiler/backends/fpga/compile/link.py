"""Parts of drafts become instructions: addresses, loops, waits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mmfree_compiler.backends.fpga.compile.allocate import Addresses
from mmfree_compiler.backends.fpga.compile.draft import Draft, Part
from mmfree_compiler.backends.fpga.compile.memory import STREAM
from mmfree_compiler.backends.fpga.isa.opcode import Instruction


def line_up(parts: Sequence[Part], end: Sequence[Draft], repeated: bool) -> list[Draft]:
    """All drafts in order, with the instructions of the sequencer; `repeated`: for each step."""
    steps = Draft.of("loop", count=0), Draft.of("next")
    length = sum(part.lines for part in parts)
    body = [Draft.of("stream", length=length, address=STREAM), *_parts(parts), *end]
    return [*([steps[0], *body, steps[1]] if repeated else body), Draft.of("end")]


def _parts(parts: Sequence[Part]) -> Iterator[Draft]:
    for part in parts:
        if part.count > 1:
            yield Draft.of("loop", count=part.count)
        yield from part.drafts
        if part.count > 1:
            yield Draft.of("next")


def link(
    drafts: Sequence[Draft], addresses: Addresses, places: Mapping[str, int]
) -> list[Instruction]:
    """The instructions, which do not wait yet. `places` are lines of the device's memory."""
    return [_linked(draft, addresses, places) for draft in drafts]


def _linked(draft: Draft, addresses: Addresses, places: Mapping[str, int]) -> Instruction:
    fields = dict(draft.numbers)
    fields |= {name: addresses[buffer] for name, buffer in draft.buffers.items()}
    if draft.place:
        fields["address"] = places[draft.place]
    return Instruction(draft.opcode).with_fields(**fields)
