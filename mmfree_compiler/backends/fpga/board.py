"""Boards: the sizes and speeds of a machine, from boards/*.toml or from a file of the user."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mmfree_compiler.backends.fpga.strides import LINE
from mmfree_compiler.errors import TargetError

_FOLDER = files("mmfree_compiler.backends.fpga").joinpath("boards")
_MOST_LINES = 1 << 16  # that an instruction can address


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Dram(_Record):
    """The device's memory: what its data sheet promises, and the share of it that reads in long
    bursts get. `latency_cycles` pass before the first line of a read.
    """

    gigabytes_per_second: float = Field(gt=0, le=1e5)
    efficiency: float = Field(gt=0, le=1)
    latency_cycles: int = Field(ge=0, le=1 << 16)
    sources: str = ""


class Resources(_Record):
    """What the chip has: LUTs (ALMs of Intel's chips), DSP slices, KiB of memory on the chip.

    `family` says what a machine costs: a key of resources.COSTS.
    """

    family: Literal["ultrascale+", "stratix10", "ecp5"]
    luts: int = Field(gt=0)
    dsps: int = Field(ge=0)
    memory_kib: int = Field(gt=0)


class Board(_Record):
    """A machine on a board: docs/targets/fpga.md says what each number means."""

    name: str
    title: str
    clock_mhz: float = Field(gt=0, le=1e4)
    engines: int = Field(gt=0, le=1 << 10)
    vector_lanes: int = Field(gt=0, le=1 << 12)
    scratch_kib: int = Field(gt=0, le=_MOST_LINES * LINE >> 10)
    codes_kib: int = Field(gt=0, le=_MOST_LINES * LINE >> 10)
    fifo_kib: int = Field(gt=0, le=1 << 20)
    queue: int = Field(gt=0, le=1 << 10)
    watts: float | None = Field(default=None, gt=0)
    dram: Dram
    resources: Resources

    @property
    def scratch_lines(self) -> int:
        return (self.scratch_kib << 10) // LINE

    @property
    def code_lines(self) -> int:
        return (self.codes_kib << 10) // LINE


def known_boards() -> tuple[str, ...]:
    """The names of the boards of this package."""
    names = (entry.name for entry in _FOLDER.iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml")))


def read_board(name: str) -> Board:
    """The board of this name, or that of a file that ends in .toml.

    Raises TargetError on an unknown name, and on a file that does not describe a board.
    """
    if name.endswith(".toml"):
        return _parsed(Path(name).stem, name, _text(Path(name)))
    if name not in known_boards():
        hint = f"Known: {', '.join(known_boards())}; or name a .toml file of your own"
        raise TargetError(f"board {name!r}", "is unknown", hint)
    return _parsed(name, name, _FOLDER.joinpath(f"{name}.toml").read_text("utf-8"))


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TargetError(f"board {path}", f"cannot be read: {error}", "Check the path") from None


def _parsed(name: str, thing: str, text: str) -> Board:
    hint = "docs/targets/fpga.md lists the keys"
    try:
        return Board(name=name, **tomllib.loads(text))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        cause = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise TargetError(f"board {thing}", cause, hint) from None
    except (tomllib.TOMLDecodeError, TypeError) as error:
        raise TargetError(f"board {thing}", f"is not valid TOML: {error}", hint) from None
