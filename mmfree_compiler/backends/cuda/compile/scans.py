"""States of a kernel that goes through a sequence token by token: they stay in registers."""

from __future__ import annotations

from dataclasses import dataclass, field

from mmfree_compiler.backends.cuda.compile.tile import Tile


@dataclass
class ScanTile(Tile):
    """Columns of one sequence. `left` are the variables of what the last token left, in order."""

    left: dict[tuple[str, int], str] = field(default_factory=dict)

    def begin(self) -> None:
        """The variables of the sequence, if a program has one."""
        starts = self.writer.parameter("starts", "*i32", "starts")
        self.writer.add(
            f"first = tl.load({starts} + tl.program_id(1))",
            f"end = tl.load({starts} + tl.program_id(1) + 1)",
            "alive = first < end",
            "inside = valid",
            "token = first",
        )

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
