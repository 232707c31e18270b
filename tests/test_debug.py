"""What MMFREE_DEBUG asks for."""

from __future__ import annotations

import pytest

from mmfree_compiler import debug


@pytest.mark.parametrize(
    ("value", "level", "tracebacks"),
    [("", 0, False), ("0", 0, True), ("1", 1, True), ("3", 3, True), ("yes", 0, True)],
)
def test_values(value: str, level: int, tracebacks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMFREE_DEBUG", value)
    assert (debug.level(), debug.tracebacks()) == (level, tracebacks)


def test_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MMFREE_DEBUG", raising=False)
    assert (debug.level(), debug.tracebacks()) == (0, False)
