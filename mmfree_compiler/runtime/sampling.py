"""The settings of a generation: how each token is chosen, and when it ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, TypedDict

from mmfree_compiler.errors import InputError
from mmfree_compiler.wording import bounds, given

# What a setting has to be -> its name, and the plain type that it becomes.
_KINDS: dict[Any, tuple[str, Any]] = {Real: ("a number", float), Integral: ("an integer", int)}

# field, its type, its least and its greatest value
_RANGES: tuple[tuple[str, Any, float, float], ...] = (
    ("repetition_penalty", Real, 1e-3, 1e3),
    ("top_k", Integral, 0, math.inf),
    ("temperature", Real, 0, 1e6),
    ("top_p", Real, math.ulp(0.0), 1),
    ("max_new_tokens", Integral, 1, math.inf),
)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How each token is chosen, and when a generation ends. Raises InputError.

    A token is chosen by these, in this order:

    repetition_penalty: divides the logits of tokens seen before when they are positive, multiplies
    them when they are negative (Keskar et al. 2019, CTRL); 0.001 to 1000, 1 changes nothing.
    top_k: keeps the k likeliest tokens, lower ids first among equals; 0 keeps all.
    temperature: divides the logits; 0 is greedy: the likeliest token, the lowest id among equals.
    top_p: keeps the fewest tokens whose probabilities sum to it (Holtzman et al. 2020), rounded to
    a multiple of 2^-15.

    The generation ends at the first of these:

    max_new_tokens: it has this many tokens.
    stop: its text contains this string, or one of these; the text ends before it.
    stop_tokens: this token, or one of these, was chosen; None is the model's end of text.
    """

    repetition_penalty: float = 1.0
    top_k: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 128
    stop: str | Sequence[str] = ()
    stop_tokens: int | Sequence[int] | None = None

    def __post_init__(self) -> None:
        for name, kind, low, high in _RANGES:
            value, (called, plain) = getattr(self, name), _KINDS[kind]
            if not isinstance(value, kind):
                raise InputError(name, f"{value!r} is not {called}", _hint(low, high))
            if not low <= value <= high:
                raise InputError(name, f"{given(value)} is out of range", _hint(low, high))
            object.__setattr__(self, name, plain(value))  # NumPy cannot compute with a Fraction
        listed = isinstance(self.stop, Sequence)
        if not listed or not all(isinstance(s, str) and s for s in self.stop_strings):
            cause = f"{self.stop!r} is not a non-empty string or a sequence of them"
            raise InputError("stop", cause, "Pass a string, or several in a list")

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """`stop` as a tuple."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


def _hint(low: float, high: float) -> str:
    return f"Choose {bounds(low, high)}"


class SamplingOptions(TypedDict, total=False):
    """The fields of Sampling as keyword arguments, for type checkers."""

    repetition_penalty: float
    top_k: int
    temperature: float
    top_p: float
    max_new_tokens: int
    stop: str | Sequence[str]
    stop_tokens: int | Sequence[int] | None
