"""Whether a random checkpoint of a published shape has the same bits on every CPU variant.

    PYTHONPATH=tests python -m conformance.large_model --shape 370M

The tests do the same with small models; this takes many minutes. It prints the digests of each
variant's logits and states, and of its texts, and exits with 1 if one is not the reference's.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Annotated

import aarch64_emulation
import pytest
import torch
import typer
from aarch64_emulation import CPUS, emulate, missing
from amx_emulation import is_emulated
from model_bits import BATCHES, CHUNKS, PROMPT, SEQUENCES, THREADS, digest, texts
from op_modules import runnable_variants

import mmfree_compiler as mmf
from mmfree_compiler.artifact import Artifact
from mmfree_compiler.models import random_checkpoint
from mmfree_compiler.runtime import Session

EMULATED_CALL = 3600  # seconds: a call takes a minute and more there


def main(shape: Annotated[str, typer.Option(help="370M, 1.3B or 2.7B.")] = "370M") -> None:
    """Print the digests of the reference and of every variant that can be run or emulated."""
    with tempfile.TemporaryDirectory() as folder:
        random_checkpoint(Path(folder), shape)
        reference = mmf.compile(Path(folder), "reference", check=False).session
        expected = f"{digest(reference)} {_texts(reference, together=False)}"
        print(f"reference: {expected}", flush=True)
        here = sorted(runnable_variants(), key=is_emulated)
        artifact = mmf.compile(Path(folder), f"cpu:{','.join(here)}", check=False).artifact
        found = {name: _run(artifact, name) for name in here}
        if not missing():
            artifact = mmf.compile(Path(folder), f"cpu:{','.join(CPUS)}", check=False).artifact
            found |= {name: _emulated(artifact, name) for name in CPUS}
    sys.exit(any(results != {expected} for results in found.values()))


def _run(artifact: Artifact, variant: str) -> set[str]:
    """All results on this CPU, with all numbers of threads, batches and chunks.

    In emulation, those of one batch and chunk.
    """
    os.environ["MMFREE_VARIANT"] = variant
    found = set()
    for threads in THREADS:
        session = Session(artifact, threads)
        assert session.launcher.build == variant
        made = _texts(session)
        ways = product(BATCHES, CHUNKS) if not is_emulated(variant) else [(SEQUENCES, PROMPT)]
        found |= {f"{digest(session, *way)} {made}" for way in ways}
    return _shown(variant, found)


def _emulated(artifact: Artifact, variant: str) -> set[str]:
    os.environ.pop("MMFREE_VARIANT", None)
    with pytest.MonkeyPatch.context() as patch:
        emulate(patch, variant)
        patch.setattr(aarch64_emulation, "TIMEOUT", EMULATED_CALL)
        session = Session(artifact, threads=2)
        return _shown(variant, {f"{digest(session)} {_texts(session)}"})


def _texts(session: Session, together: bool = True) -> str:
    return hashlib.sha256(json.dumps(texts(session, together)).encode()).hexdigest()


def _shown(variant: str, found: set[str]) -> set[str]:
    print(f"{variant}: {', '.join(sorted(found))}", flush=True)
    return found


if __name__ == "__main__":
    torch.set_num_threads(2)
    typer.run(main)
