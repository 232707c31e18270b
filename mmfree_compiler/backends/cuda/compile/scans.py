"""States of a kernel that goes through a sequence token by token: they stay in registers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mmfree_compiler.backends.cuda.compile.tile import Tile


@dataclass
class ScanTile(Tile):
    """Columns of one sequence. `left` are the variables of what the last token left, in order."""

    left: dict[tuple[str, int], str] = field(default_factory=dict)

    def load_states(self) -> None:
        """In front of the loop over tokens: the states before the first."""
        for name, offset in self._states():
            self.kept(name, offset)

    def leave(self, name: str, variable: str, offset: int = 0) -> None:
        self.left[name, offset] = variable

    def carry_states(self) -> None:
        """At the end of the loop's body. A window moves by one: each reads the one after it."""
        for (name, offset), variable in self.left.items():
            self.writer.add(f"{self.kept(name, offset)} = {variable}")

    def store_states(self) -> None:
        """Behind the loop."""
        for name, offset in self.left:
            super().leave(name, self.kept(name, offset), offset)

    def _states(self) -> Iterator[tuple[str, int]]:
        """Each state's name, and where its rows begin."""
        for node in self.part.nodes:
            if node.state is not None:
                *taps, width = self.program.state(node.state).shape
                yield from ((node.state, tap * width) for tap in range(_count(taps)))


def _count(leading: Sequence[int]) -> int:
    """Rows of a state of one row, or of a window of several."""
    return leading[0] if leading else 1
