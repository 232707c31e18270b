"""The ONNX target's checks for `mmfree doctor`."""

from __future__ import annotations

from collections.abc import Iterator

from mmfree_compiler.backends.interface import Check
from mmfree_compiler.backends.packages import Package

PACKAGES = (
    Package("onnxruntime", "run for onnx", "onnx"),
    Package("onnx", "compile for onnx", "onnx"),
)


def checks() -> Iterator[Check]:
    """The packages."""
    yield from (package.check() for package in PACKAGES)
