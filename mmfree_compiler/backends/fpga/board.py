"""Boards: the sizes and speeds of a machine, from boards/*.toml or from a file of the user."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mmfree_compiler.backends.fpga.strides import LINE
from mmfree_compiler.errors import TargetError

_FOLDER = files("mmfree_compiler.backends.fpga").joinpath("boards")
_MOST_LINES = 1 << 16  # that an instruction can address
_MOST_PARTS = 1 << 32  # of a chip
_KEYS = "docs/targets/fpga.md lists the keys"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Dram(_Record):
    """The device's memory: what its data sheet promises, and the share of it that reads in long
    bursts get. `latency_cycles` pass before the first line of a read.
    """

    gigabytes_per_second: float = Field(ge=1e-3, le=1e5)
    efficiency: float = Field(ge=1e-3, le=1)
    latency_cycles: int = Field(ge=0, le=1 << 16)
    sources: str = ""


class Resources(_Record):
    """What the chip has: LUTs (ALMs of Intel's chips), DSP slices, KiB of memory on the chip.

    `family` says what a machine costs: a key of resources.COSTS.
    """

    family: Literal["ultrascale+", "stratix10", "ecp5"]
    luts: int = Field(gt=0, le=_MOST_PARTS)
    dsps: int = Field(ge=0, le=_MOST_PARTS)
    memory_kib: int = Field(gt=0, le=_MOST_PARTS)


class Board(_Record):
    """A machine on a board: docs/targets/fpga.md says what each number means."""

    name: str
    title: str = Field(min_length=1, max_length=100)
    clock_mhz: float = Field(ge=1e-3, le=1e4)
    engines: int = Field(gt=0, le=1 << 10)
    vector_lanes: int = Field(gt=0, le=1 << 12)
    scratch_kib: int = Field(gt=0, le=_MOST_LINES * LINE >> 10)
    codes_kib: int = Field(gt=0, le=_MOST_LINES * LINE >> 10)
    fifo_kib: int = Field(gt=0, le=1 << 20)
    queue: int = Field(gt=0, le=1 << 10)
    watts: float | None = Field(default=None, ge=1e-3, le=1e6)
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
        return _board(Path(name).stem, name, _text(Path(name)))
    if name not in known_boards():
        hint = f"Known: {', '.join(known_boards())}; or name a .toml file of your own"
        raise TargetError(f"board {name!r}", "is unknown", hint)
    return _board(name, name, _FOLDER.joinpath(f"{name}.toml").read_text("utf-8"))


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        cause, hint = "is not UTF-8 text", "Save it as UTF-8"
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        cause = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        hint = f"Check the path, or choose one of {', '.join(known_boards())}"
    raise TargetError(f"board {str(path)!r}", cause, hint)


def _board(name: str, thing: str, text: str) -> Board:
    found = _parsed(thing, text)
    if "name" in found:
        cause = "has the key 'name', but its file gives it its name"
        raise TargetError(f"board {thing!r}", cause, "Remove the key, or call it 'title'")
    try:
        return Board(name=name, **found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        cause = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise TargetError(f"board {thing!r}", cause, _KEYS) from None


def _parsed(thing: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: a number of too many digits, too
        raise TargetError(f"board {thing!r}", f"is not valid TOML: {error}", _KEYS) from None
