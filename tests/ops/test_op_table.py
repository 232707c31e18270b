"""What every row of the op table keeps to, and what registration refuses."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import mmfree_compiler
from mmfree_compiler.errors import InputError
from mmfree_compiler.ops import KINDS, OPS, ROLES, Op, StateRule
from mmfree_compiler.ops.register import op
from mmfree_compiler.ops.spelling import aten, direct

every_op = pytest.mark.parametrize("row", OPS.values(), ids=str)


@every_op
def test_rows_of_the_table(row: Op) -> None:
    assert row.kind in KINDS
    assert row.roles.keys() <= {parameter.name for parameter in row.parameters}
    assert set(row.roles.values()) <= set(ROLES)
    assert (row.kind == "scan") == (row.state is not None)
    assert row.reference.__doc__
    assert row.reference.__module__ == f"mmfree_compiler.ops.{row.name}"
    assert str(row.overload) == f"{row}.default"


def test_roles_of_inputs() -> None:
    taps = OPS["short_conv"].roles_of(["x", "w", None, None])
    assert taps == [("x", "row"), ("w", "taps"), (None, "row"), (None, "row")]
    ternary = OPS["ternary_linear"].roles_of("csw1b")
    assert [role for _, role in ternary] == ["row", "row", "ternary", "row", "row"]
    assert OPS["embedding"].role("table") == "table"


@pytest.mark.parametrize("items", [0, 1, 3])
def test_roles_of_a_list(items: int) -> None:
    inputs = ["x", "outer", *(f"inner{k}" for k in range(items))]
    assert OPS["norm_quant"].roles_of(inputs) == [(name, "row") for name in inputs]


def refused(x: Tensor) -> Tensor:
    return x.clone()


STATE = StateRule(shape=lambda x, *_: (x[-1],), after=lambda y, *_: y[:, -1])
BAD: dict[str, Callable[[], Any]] = {
    "'nonsense' is not a kind": lambda: op("nonsense"),  # type: ignore[arg-type]
    "without a state rule": lambda: op("scan"),
    "a row op with a state rule": lambda: op("row", state=STATE),
    "'weight' is not a parameter. Known: x": lambda: op("row", roles={"weight": "ternary"}),
    "'codes' is not a role": lambda: op("row", roles={"x": "codes"}),  # type: ignore[dict-item]
    "aten.tanh.default is a spelling of tanh": lambda: op(
        "pointwise", aten={aten.tanh.default: direct}
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_what_is_refused(message: str) -> None:
    before = dict(OPS)
    with pytest.raises(InputError, match=message):
        BAD[message]()(refused)
    assert before == OPS
    assert not hasattr(torch.ops.mmfree, "refused")


def test_a_name_is_declared_once() -> None:
    with pytest.raises(InputError, match="op tanh: is already declared"):
        op("pointwise")(OPS["tanh"].reference)


NEW_OP = '''
import torch
from torch import Tensor

from mmfree_compiler.ops.register import op
from mmfree_compiler.ops.spelling import aten, direct


@op("pointwise", aten={aten.log1p.default: direct})
def log1p(x: Tensor) -> Tensor:
    """`log(1 + x)`."""
    return torch.log1p(x.float())
'''
USE = """
import torch
import mmfree_compiler as mmf

class Log1p(torch.nn.Module):
    def forward(self, x):
        return torch.log1p(x)

x = torch.rand(2, 3, 4)
assert torch.equal(mmf.compile(Log1p(), "reference", example_inputs=(x,))(x), torch.log1p(x))
"""


def test_an_op_is_one_new_file(tmp_path: Path) -> None:
    """In a copy of the package with one more file, ATen's call lowers to the op and runs."""
    source = Path(mmfree_compiler.__file__).parent
    package = tmp_path / source.name
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "ops" / "log1p.py").write_text(NEW_OP)
    subprocess.run([sys.executable, "-c", USE], cwd=tmp_path, check=True)
