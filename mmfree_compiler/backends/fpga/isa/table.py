"""The table of instructions."""

from __future__ import annotations

from mmfree_compiler.backends.fpga.isa.dma import DMA
from mmfree_compiler.backends.fpga.isa.opcode import Opcode
from mmfree_compiler.backends.fpga.isa.row import ROW
from mmfree_compiler.backends.fpga.isa.seq import SEQ
from mmfree_compiler.backends.fpga.isa.tmm import TMM
from mmfree_compiler.backends.fpga.isa.vec import VEC

OPCODES: dict[str, Opcode] = {
    opcode.name: opcode for unit in (SEQ, DMA, ROW, TMM, VEC) for opcode in unit
}
BY_CODE: dict[int, Opcode] = {opcode.code: opcode for opcode in OPCODES.values()}
assert len(BY_CODE) == sum(map(len, (SEQ, DMA, ROW, TMM, VEC)))
