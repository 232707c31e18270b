"""The source of one Triton kernel, and what the launcher passes to it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from mmfree_compiler.backends.cuda.facts import Argument, Over, Space

Language = Literal["triton", "gluon"]

# What comes before a kernel. Both languages have the same names for what ops need.
_IMPORTS = {
    "triton": "import triton\nimport triton.language as tl",
    "gluon": "from triton.experimental import gluon\n"
    "from triton.experimental.gluon import language as tl\n"
    "from mmfree_compiler.backends.cuda.compile.kernels import fused, joint\n"
    "from mmfree_compiler.backends.cuda.compile.kernels import product_ring, row_ring, wgmma",
}
_HEADER = """\
{imports}
from mmfree_compiler.backends.cuda.compile.kernels import (
    choosing,
    codes,
    dependence,
    functions,
    gemm,
    gemv,
    reductions,
    rows,
)

ASM = tl.constexpr({asm})
DEPENDENT = tl.constexpr({dependent})
STAGES = tl.constexpr({stages})
"""
INDENT = "    "
# Every kernel has this line: a launch does not wait for the kernel in front.
WAIT = "dependence.wait(DEPENDENT)"


def header(language: Language, asm: bool, dependent: bool, stages: int) -> str:
    """`asm`: use PTX instructions. `dependent`: kernels wait for the one in front by themselves.

    `stages` are those of rings in Gluon; Triton gets its own as an option.
    """
    imports = _IMPORTS[language]
    return _HEADER.format(imports=imports, asm=asm, dependent=dependent, stages=stages)


@dataclass(frozen=True)
class Source:
    """A kernel's text, its parameters' types, and the launch of it.

    `over`, `per` and `columns` make the grid: see facts.Launch. `warps` are those of a program, and
    `stages` how many iterations of a loop load ahead. It is launched with `shared` bytes of shared
    memory at least.
    """

    name: str
    text: str
    parameters: tuple[str, ...]
    arguments: tuple[Argument, ...]
    over: Over
    per: int
    columns: int
    warps: int
    stages: int
    language: Language = "triton"
    shared: int = 0


@dataclass
class Writer:
    """Collects the lines of a kernel's body and the parameters that they use."""

    lines: list[str] = field(default_factory=list)
    _taken: set[str] = field(default_factory=set)  # identifiers
    _parameters: dict[Argument, tuple[str, str]] = field(default_factory=dict)  # name, type
    _depth: int = 1

    def add(self, *lines: str) -> None:
        self.lines += (INDENT * self._depth + line for line in lines)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """What is added in it is the body of the statement `head`."""
        self.add(head)
        self._depth += 1
        yield
        self._depth -= 1

    def bind(self, name: str, expression: str) -> str:
        """A new variable for a value or something made of one; returns its identifier."""
        variable = self.fresh(name)
        self.add(f"{variable} = {expression}")
        return variable

    def fresh(self, name: str) -> str:
        """An identifier like `name` that no other has."""
        plain = found = re.sub(r"\W", "_", f"v_{name}")
        number = 1
        while found in self._taken:
            number += 1
            found = f"{plain}_{number}"
        self._taken.add(found)
        return found

    def parameter(
        self, name: str, kind: str, space: Space, offset: int = 0, stride: int = 0
    ) -> str:
        """The identifier of a parameter of type `kind`; each argument is passed once."""
        argument = Argument(space=space, offset=offset, stride=stride)
        if argument not in self._parameters:
            self._parameters[argument] = (self.fresh(name), kind)
        return self._parameters[argument][0]

    @property
    def arguments(self) -> tuple[Argument, ...]:
        return tuple(self._parameters)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Their types, in order."""
        return tuple(kind for _, kind in self._parameters.values())

    def text(self, name: str, language: Language) -> str:
        """The kernel `name`."""
        listed = ", ".join(variable for variable, _ in self._parameters.values())
        return "\n".join([f"@{language}.jit", f"def {name}({listed}):", *self.lines, ""])
