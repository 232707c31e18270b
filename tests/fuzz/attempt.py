"""What an attack is."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Attempt:
    """What was changed, and using it: returns an outcome, or raises as the project does."""

    change: str
    use: Callable[[], str]


Attack = Callable[[random.Random, Path], Attempt]
