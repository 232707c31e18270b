"""Mutated ONNX models: each is refused with a clear error, or is a model."""

from __future__ import annotations

from fuzz import mutations
from fuzz.attacks_on_onnx import ATTACKS
from fuzz.report import main
from fuzz.samples import samples
from fuzz.workers import Verdict

COUNT, LIMIT_S = 5_000, 240


def judge(number: int) -> Verdict:
    """The outcome of the attack of that number."""
    return mutations.judge(number, ATTACKS)


def show(number: int) -> str:
    """What the attack changes, and the command that repeats it."""
    return mutations.show(number, ATTACKS, "onnx_models")


if __name__ == "__main__":
    samples()
    main(judge, show, COUNT, LIMIT_S)
