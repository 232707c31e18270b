"""The instruction set: words and text, there and back; what is malformed is a clear error."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmfree_compiler.backends.fpga.isa.assembly import assemble, disassemble
from mmfree_compiler.backends.fpga.isa.encoding import (
    decode,
    decode_program,
    encode,
    encode_program,
)
from mmfree_compiler.backends.fpga.isa.opcode import Instruction, Opcode
from mmfree_compiler.backends.fpga.isa.steps import CYCLES
from mmfree_compiler.backends.fpga.isa.table import BY_CODE, OPCODES
from mmfree_compiler.backends.fpga.isa.word import COUNTS, FIELDS, NO_WAIT, UNITS, most
from mmfree_compiler.errors import ArtifactError, InputError


@st.composite
def instructions(draw: st.DrawFn, opcode: Opcode | None = None) -> Instruction:
    """Any instruction that the machine has."""
    chosen = opcode or draw(st.sampled_from(list(OPCODES.values())))
    rows = draw(st.integers(0, len(COUNTS) - 1)) if chosen.counted else 0
    mode = draw(st.integers(0, len(chosen.modes) - 1)) if chosen.modes else 0
    waits = (NO_WAIT,) * len(UNITS)
    if chosen.unit != "seq":
        waits = tuple(draw(st.integers(0, NO_WAIT)) for _ in UNITS)
    empty = Instruction(chosen, rows, mode, waits)
    numbers = {o.field: draw(st.integers(o.least, most(o.field))) for o in empty.operands}
    return empty.with_fields(**numbers)


PROGRAMS = st.lists(instructions(), max_size=8)


@given(PROGRAMS)
def test_words_there_and_back(program: list[Instruction]) -> None:
    words = encode_program(program)
    assert len(words) == 16 * len(program)
    assert decode_program(words) == program


@given(PROGRAMS)
def test_text_there_and_back(program: list[Instruction]) -> None:
    text = disassemble(program)
    assert assemble(text) == program
    assert disassemble(assemble(text)) == text


@pytest.mark.parametrize("opcode", OPCODES.values(), ids=OPCODES)
@given(data=st.data())
def test_every_instruction_there_and_back(opcode: Opcode, data: st.DataObject) -> None:
    instruction = data.draw(instructions(opcode))
    assert decode(encode(instruction)) == instruction
    assert assemble(disassemble([instruction])) == [instruction]


@given(st.integers(0, 2**128 - 1))
def test_a_word_is_refused_or_is_the_word_of_what_it_means(word: int) -> None:
    with suppress(ArtifactError):
        assert encode(decode(word)) == word


def test_names_and_codes_are_unique() -> None:
    assert len(BY_CODE) == len(OPCODES)
    for opcode in OPCODES.values():
        assert len({operand.name for operand in opcode.operands}) == len(opcode.operands)
        assert len(opcode.modes) <= FIELDS["mode"].most + 1
        assert set(opcode.steps) <= CYCLES.keys()


@pytest.mark.parametrize("size", [1, 15, 17, 40])
def test_truncated_programs(size: int) -> None:
    words = encode_program([Instruction(OPCODES["end"])] * 3)
    with pytest.raises(ArtifactError, match=f"program: has {size} bytes"):
        decode_program(words[:size])


MALFORMED = {
    "0xff": (0xFF, "unknown opcode 0xff"),
    "an operand that it has not": (encode(Instruction(OPCODES["end"])) | 1 << 70, "end, which has"),
    "rows": (encode(Instruction(OPCODES["select"], n=1)) | 1 << 8, "does not work on a number"),
    "a mode": (encode(Instruction(OPCODES["copy"], n=1)) | 1 << 10, "has no mode 1"),
    "a width of 0": (encode(Instruction(OPCODES["copy"])), "whose n is less than 1"),
    "waits": (encode(Instruction(OPCODES["end"])) & ~(1 << 12), "which does not wait"),
}


@pytest.mark.parametrize(("word", "cause"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_words(word: int, cause: str) -> None:
    with pytest.raises(ArtifactError, match=cause):
        decode(word)


def test_numbers_that_do_not_fit() -> None:
    with pytest.raises(OverflowError, match="copy: n is 1048576"):
        encode(Instruction(OPCODES["copy"], n=1 << 20))


LINES = {
    "jump dst=3": "unknown instruction 'jump'",
    "copy dst=3 b=4": "copy has no operand 'b': it has dst, a, n",
    "copy dst=70000": "70000 is not a number from 0 to 65535",
    "copy dst=-1": "-1 is not a number",
    "copy dst=x": "invalid literal",
    "add mode=column": "'column' is not one of rows, row, number",
    "copy rows=all": "'all' is not one of one, tokens, sequences, wanted",
    "copy dst=1 a=2": "copy, whose n is less than 1",
    "quant outer=4 n=16 mode=norm": "quant, which has no operand in field b",
    "copy wait=seq:1": "'seq' is not one of dma",
    "copy wait=dma:16": "16 is not a number from 0 to 15",
    "end wait=dma:1": "end has no operand 'wait'",
}


@pytest.mark.parametrize(("line", "cause"), LINES.items(), ids=LINES)
def test_wrong_text(line: str, cause: str) -> None:
    with pytest.raises(InputError, match="line 2: ") as caught:
        assemble(f"# a comment\n{line}\n")
    assert cause in str(caught.value)


def test_text_for_people() -> None:
    text = """
        stream address=0x40 length=2000000   # both are pairs of fields
        loop count=4
          add dst=1 a=2 b=3 n=256 mode=row rows=tokens wait=tmm:0,row:2
        next
        end
    """
    assert disassemble(assemble(text)) == (
        "stream address=64 length=2000000\n"
        "loop count=4\n"
        "  add dst=1 a=2 b=3 n=256 mode=row rows=tokens wait=row:2,tmm:0\n"
        "next\n"
        "end\n"
    )
