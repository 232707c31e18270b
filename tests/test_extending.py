"""The op, the pass and the instruction set of docs/extending.md, added to a copy of the package."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from example_backend import PAGE, blocks

import mmfree_compiler

PACKAGE = Path(mmfree_compiler.__file__).parent

USE = """
import torch
from torch import nn
import mmfree_compiler as mmf
from mmfree_compiler import passes
from mmfree_compiler.backends.cpu.features import lacks
from mmfree_compiler.backends.cpu.variants import VARIANTS
from mmfree_compiler.models import BitLinear

assert mmf.__file__.startswith({folder!r}), mmf.__file__
VARIANT = "x86-64-v3-gfni"


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = BitLinear(16, 24)

    def forward(self, x):
        return nn.functional.hardswish(-(-self.layer(x)))


model, x = Model(), torch.randn(2, 3, 16)
with torch.no_grad():
    expected = model(x)
targets = ["reference", "cpu:portable"] + [f"cpu:{{VARIANT}}"] * (not lacks(VARIANTS[VARIANT]))
for target in targets:
    compiled = mmf.compile(model, target, example_inputs=(x,), check="passes")
    assert torch.allclose(compiled(x), expected, atol=1e-5), target
    assert "drop_double_neg (1)" in compiled.explain().text(notes=True)
    assert [node.op for node in compiled.artifact.program.nodes()].count("hardswish") == 1
    assert not [node for node in compiled.artifact.program.nodes() if node.op == "neg"]
print(*targets)
"""


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with all that the page adds to it."""
    folder = tmp_path_factory.mktemp("extended")
    copy = folder / PACKAGE.name
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in blocks().items():
        if name.startswith(("ops/", "passes/")):
            (copy / name).write_text(text)
    rows = _rows()
    _insert(copy / "backends/cpu/compile/tiles.py", '    "identity": ', rows["hardswish"])
    _insert(copy / "backends/cpu/variants.py", '        Variant("x86-64-v3", ', rows["Variant"])
    _insert(copy / "backends/cpu/compile/isa.py", '        Isa("portable", ', rows["Isa"])
    module = "from mmfree_compiler.passes.drop_double_neg import DropDoubleNeg\n"
    _insert(copy / "passes/__init__.py", "from mmfree_compiler.passes.fold_constants", module)
    _insert(copy / "passes/__init__.py", "    FoldConstants(),\n", "    DropDoubleNeg(),\n")
    return folder


def _rows() -> dict[str, str]:
    """The page's rows of tables, which are indented, by the first word in them."""
    found = re.findall(r"^```python\n( .*?)^```$", PAGE.read_text(), re.M | re.S)
    names = [re.search(r"\w+", text) for text in found]
    return {name.group(): text for name, text in zip(names, found, strict=True) if name}


def _insert(path: Path, before: str, text: str) -> None:
    source = path.read_text()
    assert source.count(before) == 1, f"{path.name}: {before}"
    path.write_text(source.replace(before, text + before))


@pytest.mark.slow
def test_what_the_page_adds_works(extended: Path) -> None:
    code = textwrap.dedent(USE).format(folder=str(extended))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=extended, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:2] == ["reference", "cpu:portable"]


def test_the_page_is_linked() -> None:
    index = PAGE.with_name("index.md").read_text()
    assert PAGE.name in index
