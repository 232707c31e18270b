"""A few of the moments of interrupts.py; the whole script sends 50 signals."""

from __future__ import annotations

import pytest

from fuzz import interrupts


@pytest.mark.slow
def test_signals_at_random_moments() -> None:
    assert interrupts.main(moments=2, seed=0) == 0
