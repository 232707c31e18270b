"""Whole models: the SHA-256 of logits and states is the same, whatever runs them and however."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_cases import golden_cases
from op_modules import runnable_variants
from torch import Tensor

import mmfree_compiler as mmf
from mmfree_compiler.compiler import CompiledModel
from mmfree_compiler.runtime import Session

RUNNABLE = runnable_variants()
DEMO = Path(__file__).parents[2] / "demo"
FOLDERS = {str(case): case.folder for case in golden_cases()} | {"demo": DEMO}
SEQUENCES, PROMPT, STEPS = 7, 33, 8

folders = pytest.mark.parametrize("folder", FOLDERS.values(), ids=FOLDERS)
variants = pytest.mark.parametrize("variant", RUNNABLE)


def tokens(session: Session) -> Tensor:
    """(SEQUENCES, PROMPT + STEPS)."""
    generator = torch.Generator().manual_seed(11)
    shape = (SEQUENCES, PROMPT + STEPS)
    return torch.randint(session.language_model.vocab_size, shape, generator=generator)


def digest(session: Session, batch: int = SEQUENCES, chunk: int = PROMPT) -> str:
    """Of all logits and of the states at the end, for all sequences, `batch` of them at a time.

    The prompt is read in chunks, the rest token by token.
    """
    found = hashlib.sha256()
    parts = [run(session, rows, chunk) for rows in torch.split(tokens(session), batch)]
    for whole in zip(*parts, strict=True):
        rows = np.concatenate(whole)
        found.update(np.where(np.isnan(rows), np.float32(np.nan), rows).tobytes())
    return found.hexdigest()


def run(session: Session, ids: Tensor, chunk: int) -> Iterator[np.ndarray]:
    """Logits (B, T, V) of ids (B, T), then each state (B, ...)."""
    state, logits = None, []
    for piece in (*torch.split(ids[:, :PROMPT], chunk, 1), *torch.split(ids[:, PROMPT:], 1, 1)):
        made, state = session(piece, state)
        logits.append(made)
    yield torch.cat(logits, 1).numpy()
    assert state is not None
    for part in session.artifact.manifest.states:
        yield state.part(part.name)


@cache
def expected(folder: Path) -> str:
    return digest(mmf.compile(folder, "reference").session)


@cache
def compiled(folder: Path) -> CompiledModel:
    return mmf.compile(folder, f"cpu:{','.join(RUNNABLE)}")


@folders
@variants
@pytest.mark.slow
def test_cpu(folder: Path, variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMFREE_VARIANT", variant)
    artifact = compiled(folder).artifact
    for threads in (1, 2):
        session = Session(artifact, threads)
        assert session.launcher.build == variant
        for batch in (1, 2, SEQUENCES):
            for chunk in (1, 5, 64):
                how = f"{threads} threads, batch {batch}, chunks of {chunk}"
                assert digest(session, batch, chunk) == expected(folder), how
