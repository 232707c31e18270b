"""Running compiled models under compute-sanitizer: `python -m benchmarks.gpu_sanitize MODEL...`.

The models are `conformance.without_torch make`'s, or any other language models: small ones, since
each instruction takes many times as long. It ends with 1 if a tool finds something.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks import command
from benchmarks.processes import ROOT
from mmfree_compiler.errors import InputError
from mmfree_compiler.runtime import load

INSTALLED = "/usr/local/cuda/bin"
PROMPTS = (40, 300)  # of a plan for few tokens, and of one for many
FOUND = 3  # the status of a run in which a tool finds something


def main(
    models: Annotated[list[Path], typer.Argument(help="Compiled language models.")],
    tools: Annotated[str, typer.Option(help="Those of compute-sanitizer.")] = "memcheck,racecheck",
    here: Annotated[bool, typer.Option(help="Only run the models, in this process.")] = False,
) -> None:
    """Run each model under each tool."""
    if here:
        for model in models:
            exercise(model)
        return
    failed = [
        f"{tool} {model.stem}"
        for tool in tools.split(",")
        for model in models
        if not passes(tool, model)
    ]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def passes(tool: str, model: Path) -> bool:
    """Whether `tool` finds nothing; what it says goes to the terminal. Raises InputError."""
    sanitizer = shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path=INSTALLED
    )
    if sanitizer is None:
        hint = "Install the CUDA toolkit, or add its bin folder to PATH"
        raise InputError("compute-sanitizer", "is not installed", hint)
    typer.echo(f"{tool} {model.stem}")
    checked = [sanitizer, "--tool", tool, "--error-exitcode", str(FOUND)]
    own = [sys.executable, "-m", "benchmarks.gpu_sanitize", "--here", str(model.resolve())]
    return subprocess.run([*checked, *own], cwd=ROOT, check=False).returncode == 0


def exercise(model: Path) -> None:
    """Prompts whose last logits are wanted, and all; a batch that decodes, greedy and seeded."""
    with load(model) as session:
        size = session.language_model.vocab_size
        for length in PROMPTS:
            ids = 7 * np.arange(length) % size
            next(session.generate(ids, max_new_tokens=3, temperature=0, stop_tokens=()))
            session(ids[None])
        prompts = [[1, 2, 3], [4], [5, 6]]
        for temperature in (0.0, 1.0):
            session.generate_batch(
                prompts,
                max_new_tokens=5,
                temperature=temperature,
                seed=3,
                top_k=5,
                stop_tokens=(),
            )


if __name__ == "__main__":
    command.run(main)
