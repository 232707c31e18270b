"""The checks of `mmfree doctor`. They need no compiler, except for the self-test."""

from __future__ import annotations

import platform
import sys

from mmfree_compiler import backends
from mmfree_compiler.backends.interface import Check
from mmfree_compiler.backends.packages import Package
from mmfree_compiler.cpus import available_cpus
from mmfree_compiler.errors import MmfreeError
from mmfree_compiler.target import DEFAULT_TARGET

OLDEST_PYTHON = (3, 11)


PACKAGES = (
    Package("numpy", "run", ""),
    Package("pydantic", "run", ""),
    Package("tokenizers", "text", "text"),
    Package("typer", "command line", "cli"),
    Package("rich", "command line", "cli"),
    Package("torch", "compile, train, verify", "compile"),
    Package("safetensors", "compile, train, verify", "compile"),
    Package("networkx", "compile", "compile"),
    Package("platformdirs", "compile", "compile"),
)


def examine(deep: bool = False) -> list[Check]:
    """All checks; `deep` also compiles a tiny model, runs it and compares it with the reference."""
    checks = [_python(), _cpus(), *(package.check() for package in PACKAGES)]
    for kind in backends.kinds():
        checks += _backend(kind)
    return [*checks, _self_test()] if deep else checks


def _python() -> Check:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < OLDEST_PYTHON:
        return Check("Python", "failed", found, "Install Python 3.11 or newer")
    return Check("Python", "ok", found)


def _cpus() -> Check:
    return Check("CPUs this process may use", "ok", str(available_cpus()))


def _backend(kind: str) -> list[Check]:
    try:
        return list(backends.get(kind).checks())
    except MmfreeError as error:
        return [Check(f"target {kind}", "failed", error.cause, error.hint)]


def _self_test() -> Check:
    """Compile a tiny random model for this machine and compare it with its torch reference."""
    try:
        error = _tiny_error()
    except ImportError as missing:
        hint = f"pip install '{backends.get(DEFAULT_TARGET).extra}'"
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
    found = compile_model(model)(tokens)[0]
    return float((found - expected).abs().max())
