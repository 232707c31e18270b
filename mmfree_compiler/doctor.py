"""What this machine can compile and run, and how to fix the rest; needs neither torch nor TVM."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mmfree_compiler.cpus import available_cpus
from mmfree_compiler.errors import MmfreeError
from mmfree_compiler.runtime.cpu_features import VARIANTS, cpu_features, lacks, machine_arch

# "missing": some commands cannot run; "failed": something that should work here does not.
Status = Literal["ok", "missing", "failed"]

OLDEST_PYTHON = (3, 11)
TELLING_FEATURES = ("avx2", "avx512f", "avx512_vnni", "amx_int8", "asimddp", "i8mm")


@dataclass(frozen=True)
class Check:
    """The result of one check: what was found, and how to fix what is missing."""

    name: str
    status: Status
    found: str
    hint: str = ""


@dataclass(frozen=True)
class Package:
    """A distribution, its purpose, and the extra that installs it ("": the base install)."""

    name: str
    purpose: str
    extra: str


PACKAGES = (
    Package("numpy", "run", ""),
    Package("apache-tvm-ffi", "run", ""),
    Package("pydantic", "run", ""),
    Package("tokenizers", "text", "cli"),
    Package("typer", "command line", "cli"),
    Package("rich", "command line", "cli"),
    Package("torch", "compile, train, verify", "compile"),
    Package("safetensors", "compile, train, verify", "compile"),
    Package("networkx", "compile", "compile"),
    Package("platformdirs", "compile", "compile"),
    Package("apache-tvm", "compile for cpu", "cpu"),
)


def examine(deep: bool = False) -> list[Check]:
    """All checks; `deep` also compiles a tiny model, runs it and compares it with the reference."""
    checks = [_python(), _cpus(), _features(), *_variants(), *map(_package, PACKAGES), _linker()]
    return [*checks, _self_test()] if deep else checks


def _python() -> Check:
    found = f"{platform.python_version()} on {platform.system()} {machine_arch()}"
    if sys.version_info < OLDEST_PYTHON:
        return Check("Python", "failed", found, "Install Python 3.11 or newer")
    return Check("Python", "ok", found)


def _cpus() -> Check:
    return Check("CPUs this process may use", "ok", str(available_cpus()))


def _features() -> Check:
    telling = [name for name in TELLING_FEATURES if name in cpu_features()]
    return Check("CPU features", "ok", ", ".join(telling) or "none of those that kernels use")


def _variants() -> Iterator[Check]:
    """One check per variant, and a failure when none of them runs here."""
    missing = {name: lacks(variant) for name, variant in VARIANTS.items()}
    for name, what in missing.items():
        yield Check(f"variant {name}", "missing" if what else "ok", what or "runs here")
    if all(missing.values()):
        yield Check("cpu target", "failed", "no variant runs here", "Use an x86-64 Linux machine")


def _package(package: Package) -> Check:
    try:
        found = importlib.metadata.version(package.name)
        return Check(package.name, "ok", f"{found} ({package.purpose})")
    except importlib.metadata.PackageNotFoundError:
        wanted = f"mmfree-compiler[{package.extra}]" if package.extra else package.name
        status: Status = "missing" if package.extra else "failed"
        cause = f"not installed ({package.purpose})"
        return Check(package.name, status, cause, f"pip install '{wanted}'")


def _linker() -> Check:
    """Zig from PyPI, or the system's compiler: see backends/cpu/toolchain.py."""
    found = {"zig": _zig(), "system": shutil.which("cc")}
    wanted = os.environ.get("MMFREE_LINKER")
    if wanted and not found.get(wanted):
        cause = "is not installed" if wanted in found else "is not a known linker"
        hint = f"Unset it, or choose one of: {', '.join(found)}"
        return Check("linker", "failed", f"MMFREE_LINKER={wanted} {cause}", hint)
    linker = found[wanted] if wanted else found["zig"] or found["system"]
    if linker:
        return Check("linker", "ok", linker)
    return Check("linker", "missing", "neither ziglang nor cc is installed", "pip install ziglang")


def _zig() -> str | None:
    try:
        return f"ziglang {importlib.metadata.version('ziglang')}"
    except importlib.metadata.PackageNotFoundError:
        return None


def _self_test() -> Check:
    """Compile a tiny random model for this machine and compare it with its torch reference."""
    try:
        error = _tiny_error()
    except ImportError as missing:
        hint = "pip install 'mmfree-compiler[cpu]'"
        return Check("self-test", "missing", f"{missing.name} is not installed", hint)
    except MmfreeError as problem:
        return Check("self-test", "failed", str(problem), "Fix the problem named here")
    # One int8 code that flips on a rounding edge moves a logit of this model by less than this.
    if error > 0.05:
        return Check("self-test", "failed", f"logits are off by {error:.2g}", "Report this problem")
    return Check("self-test", "ok", f"compiled and ran a tiny model, logits within {error:.1g}")


def _tiny_error() -> float:
    """The largest difference of logits between a compiled model and its reference."""
    import torch

    from mmfree_compiler.compiler import compile as compile_model
    from mmfree_compiler.models import MatMulFreeLM, ModelConfig

    torch.manual_seed(0)
    model = MatMulFreeLM(ModelConfig.of(hidden_size=64, num_hidden_layers=2, vocab_size=257)).eval()
    tokens = torch.arange(16)[None]
    with torch.no_grad():
        expected = model(tokens)[0]
    found = compile_model(model, target="cpu")(tokens)[0]
    return float((found - expected).abs().max())
