"""Notes as text."""

from __future__ import annotations

from mmfree_compiler.notes import Note, text


def test_one_paragraph_per_pass() -> None:
    notes = [Note("a", "x", "one"), Note("a", "long", "two"), Note("b", "y", "three")]
    assert text(notes) == "a (2)\n  x     one\n  long  two\nb (1)\n  y  three"


def test_no_notes() -> None:
    assert text([]) == ""
