"""docs/targets/fpga.md: its tables are those of the instruction set, its example runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from mmfree_compiler.backends.fpga.isa.assembly import assemble
from mmfree_compiler.backends.fpga.isa.document import SECTIONS
from mmfree_compiler.backends.fpga.isa.encoding import encode_program
from mmfree_compiler.backends.fpga.isa.machine import Run, Sizes
from mmfree_compiler.backends.fpga.layouts import Trits
from mmfree_compiler.backends.fpga.run.hazards import hazards
from mmfree_compiler.backends.fpga.run.simulator import Simulator

PAGE = Path(__file__).parents[3] / "docs" / "targets" / "fpga.md"


@pytest.mark.parametrize("name", SECTIONS)
def test_tables(name: str, request: pytest.FixtureRequest) -> None:
    """`--update-golden` writes them."""
    between = re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
    page, table = PAGE.read_text("utf-8"), SECTIONS[name]()
    updated, count = between.subn(lambda found: f"{found[1]}{table}\n{found[2]}", page)
    assert count == 1
    if request.config.getoption("--update-golden"):
        PAGE.write_text(updated, "utf-8")
    assert PAGE.read_text("utf-8") == updated


def test_the_example() -> None:
    text = re.findall(r"<!-- begin example -->\n```\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    program = assemble(text[0])
    layout = Trits("1.6", 1)
    stream = np.zeros((4, 16), np.float32)
    stream[0, :4] = 0, 1e-6, 1e-5, 12700000
    stream[1, :4] = 1, 2, 1, 1
    stream[2, 0] = 0.5
    lines = np.concatenate([stream.view(np.uint8), np.zeros((1, 64), np.uint8)])
    codes = np.array([[1, 0, -1, 1], [0, 1, 1, -1]], np.int8)
    lines[3] = layout.pack(codes)
    assert lines[3, :6].tolist() == [122, 124, 123, 119, 121, 121]
    simulator = Simulator.of(Sizes(8, 8, 2, 1, layout), lines)
    row = np.zeros((1, 16), np.float32)
    row[0, :4] = 3, -1, 2, 0.5
    simulator.write(5, row.view(np.uint8))
    zero = np.zeros(1, np.int64)
    simulator.run(np.frombuffer(encode_program(program), np.uint8), Run(zero, zero, zero, 1))
    made, scale = simulator.machine.code_rows(0, 1, 4)
    assert made.tolist() == [[127, -85, 85, 21]]
    assert scale[0, 0] == np.float32(0.0125152655)
    output = simulator.read(6, 1).view(np.float32)[0, :2]
    assert output.tolist() == [np.float32(0.39423087), np.float32(-0.13141029)]
    sizes = {"scratch": 8, "codes": 8}
    assert list(hazards(program, sizes, (1, 1, 1, 1))) == []
