"""What the simulator refuses: programs that are damaged, hostile, or for another board."""

from __future__ import annotations

import numpy as np
import pytest
from fpga_programs import IDS, artifact, facts, machine, program, run
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fpga_isa import instructions

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.fpga.isa.assembly import assemble
from mmfree_compiler.backends.fpga.isa.encoding import encode_program
from mmfree_compiler.backends.fpga.isa.machine import MachineError, Run
from mmfree_compiler.backends.fpga.isa.opcode import Instruction
from mmfree_compiler.backends.fpga.run.simulator import Simulator
from mmfree_compiler.errors import ArtifactError, MmfreeError
from mmfree_compiler.runtime import Session

SMALL = st.sampled_from([0, 1, 2, 3, 5, 16, 17, 64])


def simulate(program: list[Instruction], registers: Run | None = None) -> Simulator:
    simulator = Simulator(machine())
    simulator.run(np.frombuffer(encode_program(program), np.uint8), registers or run())
    return simulator


@st.composite
def hostile(draw: st.DrawFn) -> list[Instruction]:
    """Instructions with operands of any size, most of them small, in loops that may be unsound."""
    program = []
    for instruction in draw(st.lists(instructions(), max_size=12)):
        operands = [operand for operand in instruction.operands if draw(st.booleans())]
        numbers = {o.field: max(o.least, draw(SMALL)) for o in operands}
        if instruction.opcode.name == "loop":
            numbers["m"] = draw(SMALL)
        program.append(instruction.with_fields(**numbers))
    return [i for i in program if i.opcode.name != "end"] + assemble("end")


@settings(max_examples=300)
@given(hostile(), st.integers(0, 4), st.integers(0, 3), st.integers(0, 3))
def test_hostile_programs_end(
    program: list[Instruction], tokens: int, sequences: int, steps: int
) -> None:
    index = np.arange(tokens)
    registers = Run(index, index % max(1, sequences), index, sequences, steps)
    try:
        simulate(program, registers)
    except MmfreeError as error:
        assert error.hint  # noqa: PT017 - it may also run to its end


CODES = "load n=640\nquant constants=0 n=640 wait=dma:0\n"
REFUSED = {
    "copy dst=4000 a=0 n=2000": "touches lines 4000 to 4125 of scratch, which has 4096",
    "quant dst=250 n=512 rows=tokens": "touches lines 250 to 277 of codes, which has 256",
    "params dst=0 n=16": "takes 1 lines from the stream, which has 0: it would wait forever",
    f"{CODES}stream length=2\nproduct n=5 k=640 wait=row:0": "takes 11 lines from the stream",
    "load dst=0 address=100000 n=16": "reads lines 100000 to 100001 of the device's memory",
    "load n=16\nstore a=0 address=0 n=16": "writes lines 0 to 1 of the device's memory",
    "load n=160\nconv n=16 taps=2 rows=wanted wait=dma:0": "conv: runs on rows=wanted",
    "copy dst=8 a=5 n=16": "instruction 0, copy: reads line 5 of scratch, never written",
    "load n=16\ncopy dst=8 n=16": "instruction 1, copy: copy does not wait for load of dma at 0",
    "loop count=2": "program: ends at 1 of 2, or within a loop",
    "next": "program: ends a loop at 0 that never began",
    "loop count=2\nloop count=2\nloop count=2\nnext\nnext\nnext": "more than 2 loops in each other",
    "end\ncopy n=1": "program: ends at 0 of 3, or within a loop",
    "loop count=9999\nloop count=9999\nnext\nnext": "runs more than 1,048,576 instructions",
}


@pytest.mark.parametrize(("text", "cause"), REFUSED.items(), ids=REFUSED)
def test_what_the_machine_cannot_do(text: str, cause: str) -> None:
    with pytest.raises(MachineError) as caught:
        simulate(assemble(f"{text}\nend"))
    assert cause in str(caught.value)
    assert "Compile the model again" in str(caught.value)


def test_a_program_without_an_end() -> None:
    with pytest.raises(MachineError, match="program: has no end"):
        simulate(assemble("copy n=1"))


def test_more_tokens_than_the_program_is_for() -> None:
    most = facts().tokens
    with pytest.raises(MachineError, match=f"has {most + 1} rows; the machine takes {most}"):
        simulate(program(), run(tokens=most + 1))


def test_weights_that_are_not_ternary() -> None:
    simulator = Simulator(machine())
    simulator.machine.memory.weights[:] = 255
    words = np.frombuffer(encode_program(program()), np.uint8)
    with pytest.raises(ArtifactError, match="not ternary"):
        simulator.run(words, run())


def rebuilt(**facts_: object) -> Artifact:
    build = artifact().entry.builds[0]
    other = build.model_copy(update={"facts": build.facts | facts_})
    return artifact().rebuilt({}, {"builds": (other,)})


def test_a_program_on_a_smaller_board() -> None:
    board = facts().board.model_copy(update={"scratch_kib": 1}).model_dump()
    session = Session(rebuilt(board=board))
    with pytest.raises(MachineError, match="of scratch, which has 16"):
        session(IDS.numpy())


def test_a_stream_for_other_engines() -> None:
    """Lines in another order are other weights."""
    board = facts().board.model_copy(update={"engines": 3}).model_dump()
    with pytest.raises(ArtifactError, match=r"not as lines_1\.6bit_3"):
        Session(rebuilt(board=board))


BROKEN = {
    "tokens": (0, "tokens: Input should be greater than 0"),
    "density": ("3", "density: Value error, unknown density '3'"),
    "weights": (1, "weights: have another size"),
    "places": ({}, "has no place for state"),
    "board": ({"name": "x"}, "board.title: Field required"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_wrong_facts(name: str) -> None:
    value, cause = BROKEN[name]
    with pytest.raises(ArtifactError, match="Compile the model again") as caught:
        Session(rebuilt(**{name: value}))(IDS.numpy())
    assert cause in str(caught.value)


def test_truncated_words() -> None:
    member = artifact().entry.builds[0].members["forward"]
    short = artifact().members[member][:-5].tobytes()
    with pytest.raises(ArtifactError, match="not 16 for each word"):
        Session(artifact().rebuilt({member: short}))(IDS.numpy())


def test_another_instruction_set() -> None:
    build = artifact().entry.builds[0]
    for abi, hint in ((build.abi + 1, "Upgrade mmfree-compiler"), (build.abi, "")):
        other = build.model_copy(update={"abi": abi})
        changed_ = artifact().rebuilt({}, {"builds": (other,)})
        if hint:
            with pytest.raises(ArtifactError, match=hint):
                Session(changed_)
        else:
            Session(changed_)


def test_programs_are_replaced_whole() -> None:
    """A member that is missing is an error of the artifact."""
    build = artifact().entry.builds[0]
    other = build.model_copy(update={"members": {"decode": build.members["decode"]}})
    with pytest.raises(ArtifactError, match="has no program 'forward'"):
        Session(artifact().rebuilt({}, {"builds": (other,)}))(IDS.numpy())
