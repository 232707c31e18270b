"""The bundled demo model: a byte-level MatMul-free LM trained on Python's documentation."""

from __future__ import annotations

from pathlib import Path


def demo_path() -> Path:
    """The checkpoint folder of the bundled model; its README.md is the model card."""
    return Path(__file__).parent / "demo"
