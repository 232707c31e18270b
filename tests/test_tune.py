"""The search for settings; that of each target is tested with its settings."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from mmfree_compiler import tune
from mmfree_compiler.backends.interface import Settings
from mmfree_compiler.errors import TargetError
from mmfree_compiler.target import Target

REFUSED = 3


def _retuned(_artifact: object, _spec: object, settings: Settings) -> int:
    if settings["warps"] == REFUSED:
        raise TargetError("the GPU", "has too little shared memory", "")
    return settings["warps"]


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> tune._Search:
    """A search in which a session is its number of warps, and as fast."""

    def gains(sessions: Sequence[Any]) -> list[float]:
        return [session / sessions[0] for session in sessions]

    monkeypatch.setattr(tune, "Session", lambda artifact, _: artifact)
    monkeypatch.setattr(tune, "_step", lambda *_: lambda: None)
    monkeypatch.setattr(tune, "_gains", gains)
    maker: Any = SimpleNamespace(retuned=_retuned)
    compiled: Any = SimpleNamespace(artifact=None, threads=None)
    return tune._Search(Target("x", ""), None, maker, compiled, lambda _: None)


def test_what_the_machine_refuses_has_no_speed(searched: tune._Search) -> None:
    assert searched.gains([{"warps": 2}, {"warps": REFUSED}, {"warps": 4}]) == [1.0, 0.0, 2.0]


def test_settings_that_are_used_are_not_refused(searched: tune._Search) -> None:
    with pytest.raises(TargetError, match="too little shared memory"):
        searched.gains([{"warps": REFUSED}, {"warps": 4}])
