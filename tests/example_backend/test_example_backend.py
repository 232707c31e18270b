"""The backend that docs/extending.md builds: installed from the page's own text, and run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from example_backend import HERE, files_of_the_page, install
from golden_cases import GoldenCase, golden_cases, steady_positions
from torch import nn

import mmfree_compiler as mmf
from mmfree_compiler import backends
from mmfree_compiler.errors import TargetError, UnsupportedError
from mmfree_compiler.models import BitLinear
from mmfree_compiler.runtime import Session, load

# One with every kind of layer, and one whose head is the embedding.
CASES = [case for case in golden_cases() if case.folder.name in ("conv_shared", "tied")]
cases = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The example backend, on the path of this process for the tests of this file."""
    folder = tmp_path_factory.mktemp("site-packages")
    install(folder)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] == "mmfree_numpy"]:
        del sys.modules[name]


def session(case: GoldenCase, folder: Path) -> Session:
    """Compiled, saved and loaded again."""
    path = folder / f"{case}.mmfree"
    if not path.exists():
        mmf.compile(case.folder, target="numpy").save(path)
    return load(path)


def test_the_page_shows_the_files_of_this_folder() -> None:
    files = files_of_the_page()
    own = [p for p in HERE.rglob("*") if p.suffix in (".py", ".toml") and p.parent != HERE]
    expected = {p.relative_to(HERE).as_posix(): p.read_text() for p in own}
    expected["pyproject.toml"] = (HERE / "pyproject.toml").read_text()
    assert files == expected


def test_it_is_a_target_like_any_other() -> None:
    assert "numpy" in backends.kinds()
    assert backends.get("numpy").kind == "numpy"
    with pytest.raises(TargetError, match="takes no options"):
        mmf.compile(nn.Identity(), "numpy:fast", example_inputs=(torch.ones(1, 4),))


@cases
def test_logits(case: GoldenCase, installed: Path) -> None:
    run = session(case, installed)
    for name in ("b2", "b1"):
        ids = case.golden[f"input_ids_{name}"]
        case.assert_logits(run(ids)[0], f"logits_{name}", ids)


@cases
def test_left_padding(case: GoldenCase, installed: Path) -> None:
    ids, mask = case.golden["input_ids_b2"], case.golden["attention_mask_pad"]
    logits, _ = session(case, installed)(ids, mask=mask)
    case.assert_logits(logits, "logits_pad", ids, mask)


@cases
def test_prefill_then_decode(case: GoldenCase, installed: Path) -> None:
    run, ids = session(case, installed), case.golden["input_ids_b2"][:, :24]
    steady = steady_positions(case, ids)
    logits, state = run(ids[:, :16])
    case.assert_logits(logits, "prefill16_logits", ids[:, :16])
    for k in range(8):
        logits, state = run(ids[:, 16 + k : 17 + k], state)
        error = (logits[:, 0] - case.golden["decode_logits"][:, k]).abs().amax(-1)
        assert (error[steady[:, 16 + k]] < 1e-4).all()


def test_states_go_to_other_targets_and_back(installed: Path) -> None:
    case = golden_cases()[0]
    ids = case.golden["input_ids_b2"][:, :6].numpy()
    other = mmf.compile(case.folder, target="reference").session
    ours = session(case, installed)
    expected = ours(ids)[0][:, 3:]
    for first, second in ((ours, other), (other, ours)):
        _, state = first(ids[:, :3])
        assert np.allclose(second(ids[:, 3:], state)[0], expected, atol=1e-3)


def test_generation(installed: Path) -> None:
    case = golden_cases()[0]
    options: dict[str, Any] = {"max_new_tokens": 5, "temperature": 0, "stop_tokens": ()}
    expected = mmf.compile(case.folder, target="reference").generate([1, 2, 3], **options)
    found = session(case, installed).generate([1, 2, 3], **options)
    assert [token.id for token in found] == [token.id for token in expected]


def test_modules_and_what_it_cannot_lower() -> None:
    x = torch.randn(2, 3, 8)
    layer = nn.Sequential(BitLinear(8, 6), nn.SiLU())
    with torch.no_grad():
        expected = layer(x)
    found = mmf.compile(layer, "numpy", example_inputs=(x,))(x)
    assert torch.allclose(found, expected, atol=1e-5)
    with pytest.raises(UnsupportedError, match=r"aten\.tanh|mmfree\.tanh"):
        mmf.compile(nn.Sequential(BitLinear(8, 6), nn.Tanh()), "numpy", example_inputs=(x,))


def test_the_base_install_runs_it(installed: Path) -> None:
    case = golden_cases()[0]
    session(case, installed)
    code = (
        f"import sys; sys.path.insert(0, {str(installed)!r})\n"
        "from mmfree_compiler.runtime import load\n"
        f"print(load({str(installed / f'{case}.mmfree')!r})([[1, 2]])[0].shape)\n"
        "sys.exit(', '.join({'torch', 'tvm', 'tvm_ffi', 'networkx'} & sys.modules.keys()) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(1, 2, ")
