"""Text that repeats is shortened, and nothing else is."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from mmfree_compiler.explaining.folding import folded

LAYER = [f"{name}_{{k}} = op(x_{{k}}, layers.{{k}}.{name}): float32[64]" for name in "abcde"]


def layers(count: int) -> list[str]:
    return [line.format(k=k) for k in range(count) for line in LAYER]


def restored(text: str) -> int:
    """The number of lines that a text stands for."""
    total = 0
    for line in text.split("\n"):
        more = re.fullmatch(r"\s*\.\.\. (\d+) lines? like these, ([\d,]+) more times?", line)
        total += int(more[1]) * int(more[2].replace(",", "")) if more else 1
    return total


def test_layers_fold_to_the_first() -> None:
    lines = ["start", *layers(24), "end"]
    text = folded("\n".join(lines))
    expected = ["start", *layers(1), "... 5 lines like these, 23 more times", "end"]
    assert text.split("\n") == expected


def test_one_more_time() -> None:
    long = [f"{name} = op_{name}()" for name in "abcdefghij"]
    assert folded("\n".join(long * 2)).endswith("... 10 lines like these, 1 more time")


def test_few_lines_stay() -> None:
    text = "\n".join(layers(2))
    assert folded(text) == text


def test_other_widths_are_not_equal() -> None:
    lines = [f"a_{k} = op(): float32[{64 + k}]" for k in range(40)]
    assert folded("\n".join(lines)) == "\n".join(lines)


def test_indentation_stays() -> None:
    lines = [f"    tile a_{k} = op()" for k in range(40)]
    assert folded("\n".join(lines)).split("\n")[1].startswith("    ... 1 line like these")


@given(st.lists(st.sampled_from(["a", "b_1", "b_2", "c"]), max_size=60))
def test_no_line_is_lost(lines: list[str]) -> None:
    text = "\n".join(lines)
    assert restored(folded(text)) == text.count("\n") + 1
