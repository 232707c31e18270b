"""The demo model loads, is small, and knows its text."""

from __future__ import annotations

from pathlib import Path

import torch

from mmfree_compiler.models import load_checkpoint
from mmfree_compiler.models.tokenizer import END_OF_TEXT_ID, VOCAB_SIZE
from mmfree_compiler.models.training import bits_per_byte

DEMO = Path(__file__).resolve().parents[2] / "demo"
TEXT = b"""Return True if the object is an instance of the class.

Raise ValueError if the argument is not a string.  The default is None.
"""


def test_it_is_small_and_has_a_card() -> None:
    files = {path.name: path.stat().st_size for path in DEMO.iterdir()}
    assert sum(files.values()) <= 8e6
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= files.keys()


def test_it_predicts_documentation() -> None:
    model = load_checkpoint(DEMO)
    assert model.tokenizer_path is not None
    assert (model.config.vocab_size, model.config.eos_token_id) == (VOCAB_SIZE, END_OF_TEXT_ID)
    assert model.lm_head.weight.dtype == torch.bfloat16
    tokens = torch.tensor([END_OF_TEXT_ID, *TEXT])
    # It took 0.96 when it was trained; a broken model takes about 8.
    rows_of_one = tokens.repeat(16)  # each of the measure's rows is the text once
    assert bits_per_byte(model, rows_of_one) < 2
