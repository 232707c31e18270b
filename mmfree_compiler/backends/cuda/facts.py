"""The facts of a CUDA build in the manifest: its kernels, and the plans that launch them.

Only the CUDA launcher reads them, strictly. A plan is a list of launches for calls of some number
of tokens; `Argument` says how the launcher finds the pointers.
"""

from __future__ import annotations

from typing import Literal

from mmfree_compiler.artifact import Build
from mmfree_compiler.artifact.entries import Count, Size
from mmfree_compiler.backends.builds import Record, check_member, facts_in

ABI = 4  # the number of the calling convention in run/launcher.py; each change increments it
CODE = "code"  # the role of the member that holds a build's cubins, one after another

# Where an argument points:
#   weights, scratch, states   into that memory, at `offset` + iteration of the loop * `stride`
#   input, output              at the rows of the port with number `offset`
#   slots                      int32: the state row that each token continues
#   targets                    int32: the state row that it leaves; calls with several tokens of a
#                              sequence have those of `slots`, others may have others
#   wanted                     int32: the tokens whose outputs are needed
#   starts                     int32: where the tokens of each sequence begin, and their end
#   counts                     int32: how many tokens, or at `offset` wanted tokens, there are
#   choices, work, drawn       into the first lane's record there (lanes.py), at `offset`
Space = Literal[
    "weights",
    "scratch",
    "states",
    "input",
    "output",
    "slots",
    "targets",
    "wanted",
    "starts",
    "counts",
    "choices",
    "work",
    "drawn",
]
Over = Literal["tokens", "wanted", "sequences"]


class Argument(Record):
    """One argument of a kernel."""

    space: Space
    offset: Count = 0
    stride: Count = 0


class Kernel(Record):
    """A cubin: the bytes of CODE from `offset`, and how to launch the function `symbol` in it.

    `shared` is in bytes; `parameters` are the types as Triton spells them: "*fp32", "i32". A
    `dependent` kernel may start before the one in front of it has ended: it waits for that itself.
    """

    symbol: str
    offset: Count
    size: Size
    warps: Size
    shared: Count
    dependent: bool
    parameters: list[str]


class Launch(Record):
    """A launch of `columns` x ceil(n / `per`) programs, n the number of what `over` names."""

    kernel: str
    columns: Size
    over: Over
    per: Size
    arguments: list[Argument]


class Repeat(Record):
    """Launches in order, `count` times: the iterations of a loop."""

    count: Size
    launches: list[Launch]


class Plan(Record):
    """For calls of at most `tokens` tokens.

    `together` plans take several tokens of a sequence, others at most one of each.
    """

    tokens: Size
    together: bool
    steps: list[Repeat]


class Facts(Record):
    """`arch` is such as "sm_90"; `plans` are in order of preference, for at most `chunk` tokens.

    Rows between kernels take `scratch` bytes. Those of outputs begin `output_start` bytes from the
    start of the same memory, for a caller that has no other memory for them: they may overlap rows
    that are not needed any more, and go beyond the others.

    `sampling` follows a plan's launches where the device chooses the next tokens. Only language
    models have it.
    """

    arch: str
    chunk: Size
    scratch: Count
    output_start: Count
    kernels: dict[str, Kernel]
    plans: list[Plan]
    sampling: list[Launch]


def read_facts(build: Build) -> Facts:
    """Raises ArtifactError if the facts are not those of a CUDA build."""
    check_member(build, CODE)
    return facts_in(build, Facts)
