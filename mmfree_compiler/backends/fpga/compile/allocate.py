"""Giving buffers addresses in the machine's memories: liveness, then the lowest free place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmfree_compiler.backends.fpga.compile.draft import Buffer, Draft
from mmfree_compiler.backends.liveness import Life, first_fit, largest_first

Addresses = Mapping[Buffer, int]


def allocate(
    drafts: Sequence[Draft], memories: Mapping[str, int], tokens: int
) -> dict[Buffer, int] | None:
    """The line of each buffer when runs have up to `tokens` tokens; None if a memory is too small.

    `memories` are their sizes in lines.
    """
    lives = _lives(drafts)
    addresses: dict[Buffer, int] = {}
    for memory, size in memories.items():
        here = {buffer.name: buffer for buffer in lives if buffer.memory == memory}
        sizes = {name: _size(buffer, tokens) for name, buffer in here.items()}
        order = {name: lives[buffer] for name, buffer in here.items()}
        offsets, end = first_fit(largest_first(sizes), [order])
        if end > size:
            return None
        addresses |= {here[name]: offset for name, offset in offsets.items()}
    return addresses


def _size(buffer: Buffer, tokens: int) -> int:
    return buffer.lines * (1 if buffer.rows == "one" else tokens)


def _lives(drafts: Sequence[Draft]) -> dict[Buffer, Life]:
    """What is needed in a loop and outside of it is needed in all iterations."""
    lives: dict[Buffer, Life] = {}
    for at, draft in enumerate(drafts):
        for buffer in draft.buffers.values():
            lives[buffer] = Life(lives.get(buffer, Life(at, at)).first, at)
    for first, last in _loops(drafts):
        for buffer, life in lives.items():
            if life.first < first <= life.last or life.first <= last < life.last:
                lives[buffer] = Life(min(life.first, first), max(life.last, last))
    return lives


def _loops(drafts: Sequence[Draft]) -> list[tuple[int, int]]:
    """Where loops begin and end, inner ones first."""
    open_: list[int] = []
    found = []
    for at, draft in enumerate(drafts):
        if draft.opcode.name == "loop":
            open_.append(at)
        elif draft.opcode.name == "next":
            found.append((open_.pop(), at))
    return found
