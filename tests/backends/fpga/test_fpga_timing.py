"""The cycle model: exact cycles of small programs, the FIFO, and floors of whole models."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import pytest
from fpga_programs import facts, program
from hypothesis import given
from hypothesis import strategies as st

from mmfree_compiler import backends
from mmfree_compiler.backends.fpga.board import Board, read_board
from mmfree_compiler.backends.fpga.isa.assembly import assemble
from mmfree_compiler.backends.fpga.isa.machine import MachineError
from mmfree_compiler.backends.fpga.isa.word import NO_WAIT, UNITS
from mmfree_compiler.backends.fpga.layouts import Trits
from mmfree_compiler.backends.fpga.timing.fifo import Fifo
from mmfree_compiler.backends.fpga.timing.intervals import intervals
from mmfree_compiler.backends.fpga.timing.model import Timeline, simulate
from mmfree_compiler.backends.projection import Projection, Projector
from mmfree_compiler.models.config import SHAPES
from mmfree_compiler.program import Program
from mmfree_compiler.scaled import program_of

COUNTS = (1, 1, 1, 1)
# What the paper's 42 ms for 1.3B imply: 60 MHz, and 7.7 GB/s of weights.
PAPER = """
title = "The paper's core, as far as its estimate tells"
clock_mhz = 60
engines = 4
vector_lanes = 16
scratch_kib = 4096
codes_kib = 512
fifo_kib = 512
queue = 16
[dram]
gigabytes_per_second = 7.7
efficiency = 1.0
latency_cycles = 20
[resources]
family = "stratix10"
luts = 933120
dsps = 5760
memory_kib = 29302
"""


def board(**changed: object) -> Board:
    return read_board("ecp5-85").model_copy(update=changed)


def timeline(text: str, steps: int = 1, **changed: object) -> Timeline:
    own = board(**changed)
    return simulate(assemble(f"{text}\nend"), own, Trits("1.6", own.engines), COUNTS, steps)


def test_a_unit_runs_its_instructions_one_after_the_other() -> None:
    """32 columns on a lane take 32 cycles, an addition 7 more."""
    first, second = timeline("add dst=0 a=2 b=4 n=32\nadd dst=6 a=0 b=4 n=32").spans
    assert (first.issued, first.start, first.end, first.done) == (1, 2, 34, 41)
    assert (second.issued, second.start, second.end, second.done) == (2, 41, 73, 80)
    assert (first.cause, second.cause) == ("seq", "")


def test_units_run_side_by_side_until_they_wait() -> None:
    text = "add dst=0 a=2 b=4 n=32\nnorm dst=8 a=10 weight=12 eps=14 n=32 wait={}"
    alone, waiting = (timeline(text.format(f"vec:{k}")).spans[1] for k in (1, 0))
    assert (alone.start, alone.cause) == (3, "seq")
    assert (waiting.start, waiting.cause) == (41, "vec")


def test_a_full_queue_stops_the_sequencer() -> None:
    text = "copy n=64\n" * 4 + "center n=1"
    issued = [span.issued for span in timeline(text, queue=2).spans]
    assert issued == [1, 2, 3, 66, 67]  # the fourth waits until the second has started


def test_a_product() -> None:
    """Two tiles of two blocks on an engine: a line in a cycle, and one for the scale."""
    rate = {"gigabytes_per_second": 1e4, "efficiency": 1.0, "latency_cycles": 30}
    dram = board().dram.model_copy(update=rate)
    (span,) = timeline("stream length=5\nproduct n=10 k=128", dram=dram).spans
    assert (span.start, span.end) == (3, 36)  # asked for in cycle 1, there 30 cycles later
    assert span.starved == 28
    assert span.done - span.end == 12 + 4 + 4


def test_dma_delays_the_stream() -> None:
    load = "load dst=0 address=0 n=1600 stride=100\n"
    text = "stream length=401\n{}product n=500 k=256"
    alone, beside = (timeline(text.format(x)).spans[-1].end for x in ("", load))
    lines = board().clock_mhz * 1e6 * 64 / (board().dram.gigabytes_per_second * 0.8 * 1e9)
    assert beside - alone == pytest.approx(100 * lines, abs=2)


def test_what_is_not_streamed() -> None:
    with pytest.raises(MachineError, match="takes 5 lines from streams of 4"):
        timeline("stream length=4\nproduct n=10 k=128")


@given(
    st.floats(0.1, 20),
    st.integers(1, 50),
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 40), st.integers(0, 60)), max_size=12),
)
def test_the_fifo_never_gives_what_has_not_arrived(
    rate: float, depth: int, takes: list[tuple[int, int, int]]
) -> None:
    total = sum(lines for _, lines, _ in takes)
    fifo, time, taken = Fifo(rate, depth, latency=5), 0.0, 0
    fifo.ask(0, total)
    for gap, lines, cycles in takes:
        start = time + gap
        time = fifo.take(start, lines, cycles)
        taken += lines
        assert time >= start + cycles
        assert taken <= rate * (time - 5) + 1e-6
        assert -1e-6 <= fifo.level <= depth + 1e-6
        assert fifo.delivered == pytest.approx(taken + fifo.level)
        assert fifo.delivered + fifo.ahead == pytest.approx(total)


@pytest.mark.parametrize("role", ["forward", "advance", "decode"])
@given(data=st.data())
def test_times_keep_to_the_waits(role: str, data: st.DataObject) -> None:
    """Whatever the board: each span begins when all that it waits for is done."""
    whole = program(role)
    own = facts().board.model_copy(
        update={
            "vector_lanes": data.draw(st.integers(1, 64)),
            "queue": data.draw(st.integers(1, 20)),
            "fifo_kib": data.draw(st.integers(1, 64)),
        }
    )
    tokens = data.draw(st.integers(1, 4))
    spans = simulate(whole, own, facts().layout, (1, tokens, tokens, tokens), 2).spans
    done: dict[str, list[int]] = {unit: [] for unit in UNITS}
    for span in spans:
        for unit, distance in zip(UNITS, whole[span.place].waits, strict=True):
            older = done[unit][: len(done[unit]) - distance] if distance != NO_WAIT else []
            assert span.start >= max(older, default=0)
        assert span.issued < span.start <= span.end <= span.done
        done[span.unit].append(span.done)
    assert all(times == sorted(times) for times in done.values())


def test_intervals_fill_the_time() -> None:
    found = simulate(program(), facts().board, facts().layout, COUNTS)
    for unit, parts in intervals(found, 0, found.cycles).items():
        assert [part.start for part in parts] == [0, *(part.end for part in parts[:-1])]
        assert parts[-1].end == found.cycles
        work = sum(part.end - part.start for part in parts if part.what == "work")
        spans = [span for span in found.spans if span.unit == unit]
        assert work == sum(span.end - span.start - span.starved for span in spans)


# --- whole models ---------------------------------------------------------------------------------


@cache
def of_shape(shape: str) -> Program:
    return program_of(SHAPES[shape])


@cache
def projection(shape: str, options: str) -> Projection:
    backend, spec = backends.of(f"fpga:{options}")
    assert isinstance(backend, Projector)
    return backend.project_shape(of_shape(shape), spec, shape)


def figure(shape: str, options: str, name: str) -> float:
    return next(f.value for f in projection(shape, options).figures if f.name == name)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", ["d5005", "d5005,density=2", "kv260", "kv260,density=2"])
def test_reading_the_weights_is_all_that_takes_time(shape: str, options: str) -> None:
    assert figure(shape, options, "share of that bound") >= 98


def test_the_papers_core(tmp_path: Path) -> None:
    """Its estimate for 1.3B is 42 ms."""
    path = tmp_path / "paper.toml"
    path.write_text(PAPER)
    assert figure("1.3B", str(path), "time") <= 36


def test_370m_on_the_kv260() -> None:
    """matmulfree_KRIA: 30.6 tokens per second."""
    assert figure("370M", "kv260", "speed") >= 7 * 30.6


def test_several_tokens_read_the_weights_once() -> None:
    prompt = figure("1.3B", "d5005", f"prompt, {tokens('1.3B', 'd5005')} tokens at once")
    assert prompt > 3 * figure("1.3B", "d5005", "speed")


def tokens(shape: str, options: str) -> int:
    names = (f.name for f in projection(shape, options).figures)
    return int(next(name for name in names if name.startswith("prompt")).split()[1])


def test_programs_do_not_grow_with_depth() -> None:
    """Layers are a loop: what differs between the shapes are numbers."""
    units = {shape: projection(shape, "d5005").units for shape in ("370M", "2.7B")}
    assert math.isclose(len(units["2.7B"]["row"]) / len(units["370M"]["row"]), 32 / 24, rel_tol=0.1)
