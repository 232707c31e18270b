"""What instructions of a compiled library are for, in a listing as objdump prints it."""

from __future__ import annotations

import pytest

from benchmarks.disassembly import functions, return_addresses

# Two stages: the first multiplies in its own loops, the second calls a function that does.
LISTING = """
kernels.so:     file format elf64-x86-64

0000000000000010 <products>:
      10:	vpdpbusd (%rsi),%ymm1,%ymm0
      18:	jne    10 <products>
      20:	ret
      28:	nopw   0x0(%rax,%rax,1)

0000000000000030 <task>:
      30:	vsqrtps %ymm0,%ymm0
      38:	jb     30 <task>
      40:	call   *(%rax)
      48:	vpxor  %xmm0,%xmm0,%xmm0
      50:	vpmaddubsw %ymm1,%ymm2,%ymm3
      58:	jne    50 <task+0x20>
      60:	vpmaddwd %ymm3,%ymm4,%ymm5
      68:	jne    50 <task+0x20>
      70:	vmulps %ymm5,%ymm6,%ymm7
      78:	vaddps %ymm7,%ymm8,%ymm9
      80:	jne    78 <task+0x48>
      88:	jne    48 <task+0x18>
      90:	call   *0x8(%r13)
      98:	vmaxps %ymm0,%ymm1,%ymm2
      a0:	jne    98 <task+0x68>
      a8:	call   *(%rax)
      b0:	call   10 <products>
      b8:	vmulps %ymm5,%ymm6,%ymm7
      c0:	jmp    b0 <task+0x80>
      c8:	call   *(%rax)
      d0:	jne    30 <task>
      d8:	ret
"""


@pytest.mark.parametrize(
    ("at", "stage", "part"),
    [
        (0x30, 0, "rows"),
        (0x48, 0, "epilogue"),
        (0x50, 0, "products"),
        (0x60, 0, "products"),
        (0x70, 0, "epilogue"),
        (0x78, 0, "epilogue"),
        (0x98, 1, "rows"),
        (0xB0, 1, "epilogue"),
        (0xB8, 1, "epilogue"),
    ],
)
def test_parts_and_stages(at: int, stage: int, part: str) -> None:
    task = functions(LISTING)[-1]
    assert (task.stage(at), task.part(at)) == (stage, part)


def test_a_function_of_products_alone() -> None:
    found = functions(LISTING)
    assert [function.first for function in found] == [0x10, 0x28]
    assert found[0].multiplies
    assert found[0].part(0x18) == "products"
    assert return_addresses(found) == {0x10: {0xB8}}
