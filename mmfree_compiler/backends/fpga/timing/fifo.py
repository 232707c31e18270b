"""The stream's FIFO: the device's memory fills it, TMM takes from it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Fifo:
    """`rate` lines arrive in a cycle while there is room for them, in times that never go back.

    `depth` is its size in lines, `ahead` the lines that are asked for and have not arrived, `debt`
    those that DMA moved instead. `delivered` counts lines.
    """

    rate: float
    depth: float
    latency: int
    time: float = 0.0
    level: float = 0.0
    ahead: float = 0.0
    debt: float = 0.0
    delivered: float = 0.0

    def ask(self, time: float, lines: int) -> None:
        """A stream of `lines` lines is asked for."""
        if not self.ahead:
            self.fill(time)
            self.time = max(self.time, time + self.latency)
        self.ahead += lines

    def move(self, lines: int) -> None:
        """DMA takes the memory for some lines."""
        self.debt += lines

    def fill(self, time: float) -> None:
        """Nothing is taken until `time`."""
        if time > self.time:
            self._arrive(time - self.time, self.depth - self.level)
            self.time = time

    def take(self, time: float, lines: int, cycles: int) -> float:
        """`lines` are taken from `time` on, in `cycles` or as they arrive: when the last is taken.

        It may be later than `cycles` because the FIFO runs dry.
        """
        self.fill(time)
        missing = lines - self.level
        start, dry = self.time, max(0.0, missing + self.debt) / self.rate
        end = max(start + cycles, start + dry)
        self._arrive(end - start, lines + self.depth - self.level)
        self.level -= lines
        self.time = end
        return end

    def _arrive(self, cycles: float, room: float) -> None:
        arriving = self.rate * cycles
        paid = min(arriving, self.debt)
        self.debt -= paid
        arrived = min(arriving - paid, room, self.ahead)
        self.ahead -= arrived
        self.level += arrived
        self.delivered += arrived
