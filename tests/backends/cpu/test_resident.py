"""How much of a mapped artifact becomes resident: its packed weights, and hardly more."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from op_modules import SmallLM, state_rows

import mmfree_compiler as mmf
from mmfree_compiler.backends.cpu.layouts import LAYOUTS
from mmfree_compiler.compiled_model import CompiledModel
from mmfree_compiler.runtime import load

VOCABULARY = 200_000
IDS = np.arange(0, VOCABULARY, 50)  # one in every 25 KiB of the embedding
SMALL = 4 << 20  # the rest of weights.bin, and the folios of up to 2 MiB that pages are mapped by


@pytest.fixture(scope="module")
def compiled() -> CompiledModel:
    """A model whose embedding is 98 MiB, its head 12."""
    model = SmallLM(V=VOCABULARY, D=256, inner=64, L=1)
    model.table = model.table.bfloat16()
    ids = torch.zeros(1, 2, dtype=torch.int64)
    return mmf.compile(model, "cpu:portable", example_inputs=(ids,))


@pytest.fixture(scope="module")
def path(compiled: CompiledModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wide") / "wide.mmfree"
    compiled.save(path)
    return path


def resident(path: Path) -> int:
    """Bytes of this process's mappings of `path` that are in memory (man 5 proc, smaps)."""
    maps = Path("/proc/self/smaps").read_text()
    found = re.findall(rf"^\S+-\S+ .* {path}\n(?:.*\n)*?Rss: +(\d+) kB", maps, re.MULTILINE)
    assert found, f"{path} is not mapped"
    return 1024 * sum(map(int, found))


def test_embedding_rows_do_not_become_resident(path: Path) -> None:
    session = load(path, threads=1, verify=True)
    tensors = session.artifact.entry.tensors.values()
    packed = sum(tensor.nbytes for tensor in tensors if tensor.layout in LAYOUTS)
    session.prefill(IDS)
    for _ in session.generate(IDS[:1], max_new_tokens=4):
        pass
    assert packed < resident(path) + SMALL  # what is measured is the mapping
    assert resident(path) < packed + SMALL


def test_rows_from_the_file_are_those_in_memory(compiled: CompiledModel, path: Path) -> None:
    tokens = IDS[None, -3:]
    logits, state = load(path, threads=1)(tokens)
    expected, expected_state = compiled(tokens)
    assert np.array_equal(logits, expected)
    assert np.array_equal(state_rows(state), state_rows(expected_state))
