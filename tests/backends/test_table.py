"""The table of backends: those of this package, and those that others install."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import mmfree_compiler as mmf
from mmfree_compiler import backends, doctor
from mmfree_compiler.backends.cpu import CpuBackend
from mmfree_compiler.backends.reference import ReferenceBackend
from mmfree_compiler.errors import InputError, TargetError, ToolchainError
from mmfree_compiler.models import BitLinear
from mmfree_compiler.runtime import Session
from mmfree_compiler.target import Target

TOY = """
from dataclasses import dataclass
from mmfree_compiler.backends.interface import Check
from mmfree_compiler.backends.reference import ReferenceBackend

@dataclass(frozen=True)
class Spec:
    words: str
    def __str__(self):
        return self.words.lower()

class ToyBackend(ReferenceBackend):
    kind = "toy"
    extra = "toy-backend[compile]"
    def parse(self, options):
        return Spec(options)
    def checks(self):
        return [Check("toy", "ok", "plays")]

BACKEND = ToyBackend()
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages; none yet."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def install(site: Path, entry: str, **modules: str) -> None:
    """A package of `modules` that declares the backend `entry`."""
    for name, code in modules.items():
        (site / f"{name}.py").write_text(code)
    info = site / "toy_backend-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-backend\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{backends.GROUP}]\n{entry}\n")


@pytest.fixture
def toy(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, "toy = toy_backend:BACKEND", toy_backend=TOY)
    monkeypatch.delitem(sys.modules, "toy_backend", raising=False)


def test_the_kinds_of_this_package() -> None:
    assert backends.kinds() == ("cpu", "cuda", "fpga", "onnx", "reference")
    assert isinstance(backends.get("cpu"), CpuBackend)
    assert isinstance(backends.get("reference"), ReferenceBackend)


@pytest.mark.parametrize("kind", backends.BUILT_IN)
def test_each_says_who_it_is(kind: str) -> None:
    backend = backends.get(kind)
    assert backend.kind == kind
    assert backend.extra.startswith("mmfree-compiler[")
    assert str(backend.parse("")) == ""
    if kind != "cuda":  # there may be no GPU
        assert backend.parse(str(backend.here())) == backend.here()


@pytest.mark.parametrize("kind", ["gpu", "", "CPU", "cpu "])
def test_unknown_kinds(kind: str) -> None:
    with pytest.raises(
        TargetError, match=f"target '{kind}': is unknown. Known: cpu, cuda, fpga, onnx, reference"
    ):
        backends.get(kind)
    with pytest.raises(TargetError, match="is unknown"):
        backends.of(Target(kind))


def test_a_target_and_its_options() -> None:
    backend, spec = backends.of("cpu:portable,density=2")
    assert backend is backends.get("cpu")
    assert spec == backend.parse("portable,density=2")
    assert backends.of(Target("cpu", "portable,density=2")) == (backend, spec)


@pytest.mark.parametrize("target", ["cpu:z80", "cpu:density=7", "cpu:speed=2", "reference:fast"])
def test_unknown_options(target: str) -> None:
    with pytest.raises(TargetError, match=f"target '{target}'"):
        backends.of(target)


@pytest.mark.usefixtures("toy")
def test_an_installed_backend_is_found() -> None:
    assert backends.kinds() == ("cpu", "cuda", "fpga", "onnx", "reference", "toy")
    backend, spec = backends.of("toy:Fast")
    assert (backend.kind, str(spec)) == ("toy", "fast")
    with pytest.raises(TargetError, match="Known: cpu, cuda, fpga, onnx, reference, toy"):
        backends.get("gpu")
    assert ("toy", "ok", "plays") in {(c.name, c.status, c.found) for c in doctor.examine()}


@pytest.mark.usefixtures("toy")
def test_an_installed_backend_compiles_and_runs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, x = nn.Sequential(BitLinear(8, 8), nn.SiLU()).eval(), torch.randn(3, 8)
    compiled = mmf.compile(module, "toy:Fast", example_inputs=(x,))
    assert compiled.artifact.entry.target == "toy:fast"
    reference = mmf.compile(module, "reference", example_inputs=(x,))
    assert torch.equal(compiled(x), reference(x))
    with pytest.raises(TargetError, match="cannot be saved"):
        compiled.save(tmp_path / "model.mmfree")
    with pytest.raises(InputError, match="option 'threads': is not an option of target toy"):
        Session(compiled.artifact, threads=2)


def test_this_packages_kinds_are_not_replaced(site: Path) -> None:
    install(site, "cpu = toy_backend:BACKEND", toy_backend=TOY)
    assert backends.kinds() == ("cpu", "cuda", "fpga", "onnx", "reference")
    assert isinstance(backends.get("cpu"), CpuBackend)


BROKEN = {
    "no module": ("odd = no_such_module:BACKEND", "No module named 'no_such_module'"),
    "no such name": ("odd = odd_backend:OTHER", "OTHER"),
    "a missing package": ("odd = needs_backend:BACKEND", "No module named 'no_such_package'"),
    "a bug": ("odd = raises_backend:BACKEND", "too old"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_an_installed_backend_that_does_not_load(site: Path, what: str) -> None:
    entry, said = BROKEN[what]
    install(
        site,
        entry,
        odd_backend="BACKEND = 1",
        needs_backend="import no_such_package",
        raises_backend="raise RuntimeError('too old')",
    )
    assert backends.kinds() == ("cpu", "cuda", "fpga", "onnx", "reference", "odd")
    with pytest.raises(ToolchainError, match="target 'odd': does not load: ") as caught:
        backends.get("odd")
    assert said in caught.value.cause
    assert entry.removeprefix("odd = ") in caught.value.hint
    # `doctor` goes on.
    (check,) = (check for check in doctor.examine() if check.name == "target odd")
    assert check.status == "failed"
    assert said in check.found


class Halved(ReferenceBackend):
    """Its compiler needs what is not there."""

    kind = "halved"
    extra = "halved[compile]"

    def __init__(self, code: str) -> None:
        self.code = code

    def compiler(self) -> None:  # type: ignore[override]
        exec(self.code)

    def launcher(self) -> None:  # type: ignore[override]
        exec(self.code)


def test_a_compiler_whose_packages_are_missing() -> None:
    with pytest.raises(ToolchainError) as caught:
        backends.compiler(Halved("import no_such_package"))  # type: ignore[arg-type]
    error = caught.value
    assert error.thing == "target halved"
    assert error.cause == "compiling needs no_such_package, which is not installed"
    assert error.hint == "pip install 'halved[compile]'"


def test_a_launcher_whose_packages_are_missing() -> None:
    with pytest.raises(ToolchainError) as caught:
        backends.launcher(Halved("import no_such_package"))  # type: ignore[arg-type]
    assert caught.value.cause == "running needs no_such_package, which is not installed"
    assert caught.value.hint == "pip install 'halved'"


def test_a_compiler_whose_packages_are_too_old() -> None:
    with pytest.raises(
        ToolchainError, match="compiling for it fails: cannot import name 'no_such'"
    ):
        backends.compiler(Halved("from torch import no_such"))  # type: ignore[arg-type]


def test_the_cpus_compiler_without_its_extra() -> None:
    code = (
        "import sys; sys.modules['tvm'] = None\n"
        "from mmfree_compiler import backends\n"
        "backends.compiler(backends.get('cpu'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert "ToolchainError: target cpu: compiling needs tvm, which is not installed" in last
    assert last.endswith("pip install 'mmfree-compiler[cpu]'")
