"""Boards: those of the package, the user's own, and what does not fit or is not a board."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmfree_compiler import backends
from mmfree_compiler.backends.fpga.board import known_boards, read_board
from mmfree_compiler.backends.fpga.layouts import DENSITIES
from mmfree_compiler.backends.fpga.resources import SPARE, uses
from mmfree_compiler.backends.fpga.spec import parse
from mmfree_compiler.errors import TargetError

OWN = """
title = "A board of my own"
clock_mhz = 200
engines = 2
vector_lanes = 4
scratch_kib = 512
codes_kib = 64
fifo_kib = 64
queue = 8
[dram]
gigabytes_per_second = 12.8
efficiency = 0.8
latency_cycles = 40
[resources]
family = "ultrascale+"
luts = 100000
dsps = 1000
memory_kib = 1000
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.toml"
    path.write_text(OWN)
    return path


def test_the_boards_of_the_package() -> None:
    assert known_boards() == ("d5005", "ecp5-85", "kv260", "u280")
    for name in known_boards():
        assert read_board(name).dram.sources


@pytest.mark.parametrize("name", known_boards())
@pytest.mark.parametrize("density", DENSITIES)
def test_every_machine_fits_its_chip(name: str, density: str) -> None:
    for use in uses(read_board(name), density):
        assert 0 < use.share <= 1 - SPARE, use


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("", ""),
        ("d5005", ""),
        ("density=2", "density=2"),
        ("d5005,density=2", "density=2"),
        ("kv260,density=1.6", "kv260"),
        ("kv260,density=2", "kv260,density=2"),
    ],
)
def test_the_shortest_spelling(options: str, text: str) -> None:
    assert str(parse(options)) == text
    assert parse(text) == parse(options)


def test_a_board_of_the_user(own: Path) -> None:
    spec = parse(f"{own},density=2")
    assert (spec.board.name, spec.board.title) == ("own", "A board of my own")
    assert spec.layout.group == 2
    assert parse(str(spec)) == spec


WRONG = {
    "stratix": "board 'stratix': is unknown. Known: d5005, ecp5-85, kv260, u280",
    "kv260,fast": "has the unknown option 'fast'",
    "kv260,density=3": "has the unknown option 'density=3'. Write fpga:BOARD, and after it",
    "nowhere.toml": "board 'nowhere.toml': cannot be read: No such file or directory. Check",
    "zero\0byte.toml": "board 'zero\\x00byte.toml': cannot be read",
}


@pytest.mark.parametrize("options", WRONG)
def test_unknown_options(options: str) -> None:
    with pytest.raises(TargetError) as caught:
        backends.of(f"fpga:{options}")
    assert WRONG[options] in str(caught.value)


CHANGES = {
    "engines = 2": ("engines = 0", "engines: Input should be greater than 0"),
    "queue = 8": ("", "queue: Field required"),
    "clock_mhz": ("clock_ghz", "clock_mhz: Field required"),
    "efficiency = 0.8": ("efficiency = 1.8", "dram.efficiency: Input should be less than"),
    "scratch_kib = 512": ("scratch_kib = 9999", "scratch_kib: Input should be less than"),
    'family = "ultrascale+"': ('family = "z80"', "resources.family: Input should be"),
    "title =": ("title", "is not valid TOML"),
    "title": ("name = 'x'\ntitle", "has the key 'name', but its file gives it its name"),
    "codes_kib = 64": ("codes_kib = 640", "needs 1,216 KiB of memory of 1,000; 20% must stay"),
    "dsps = 1000": ("dsps = 100", "needs 276 DSP slices of 100"),
    "luts = 100000": ("luts = 10000", "LUTs of 10,000"),
    "luts = 1": ("luts = 1" + 5000 * "0", "is not valid TOML: Exceeds the limit"),
    "luts = ": (f"luts = {1 << 40}", "resources.luts: Input should be"),
    "engines =": ("engines = '2' #", "engines: Input should be a valid integer"),
    "vector_lanes =": ("vector_lanes = true #", "vector_lanes: Input should be a valid integer"),
    "clock_mhz =": ("clock_mhz = 1e-320 #", "clock_mhz: Input should be greater than"),
    "gigabytes_per_second =": ("gigabytes_per_second = 1e-300 #", "dram.gigabytes_per_second: "),
    "latency_cycles =": ("latency_cycles = inf #", "dram.latency_cycles: Input should be"),
    "[dram]": ("watts = inf\n[dram]", "watts: Input should be"),
    "memory_kib =": ("other = " + 99_999 * "[" + "\n#", "is not valid TOML: maximum recursion"),
    "A board of my own": ("x" * 101, "title: String should have at most 100 characters"),
}


@pytest.mark.parametrize("line", CHANGES)
def test_files_that_are_no_board(line: str, own: Path) -> None:
    new, cause = CHANGES[line]
    own.write_text(OWN.replace(line, new))
    with pytest.raises(TargetError) as caught:
        parse(str(own))
    assert cause in str(caught.value)
    assert caught.value.hint


def test_a_file_that_is_not_text(own: Path) -> None:
    own.write_bytes(b"\xff")
    with pytest.raises(TargetError, match=r"own\.toml': is not UTF-8 text\. Save it as UTF-8"):
        parse(str(own))
