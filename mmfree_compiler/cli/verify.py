"""`mmfree verify`: compares a compiled model with its checkpoint, or with another compiled one."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, TextColumn

from mmfree_compiler.cli.loading import load_language_model
from mmfree_compiler.cli.options import ArtifactPath, Json, Progressless, RunTarget, Threads, only
from mmfree_compiler.cli.output import emit, progress
from mmfree_compiler.cli.same_bits import compare_bits
from mmfree_compiler.errors import InputError
from mmfree_compiler.tables import facts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mmfree_compiler.runtime import Session
    from mmfree_compiler.verify import Report

BYTES = 256  # different byte values
LONGEST_TOKEN = 64  # bytes, on average over a text


def verify(
    model: ArtifactPath,
    against: Annotated[
        Path,
        typer.Option(
            metavar="CHECKPOINT|MODEL",
            help="Checkpoint the model was compiled from, or the same compiled for another target.",
        ),
    ],
    text: Annotated[
        Path | None,
        typer.Option(
            help="Text file to compare on.", show_default="part of Python's documentation"
        ),
    ] = None,
    tokens: Annotated[int, typer.Option(help="Number of tokens to compare on.", min=1)] = 4096,
    seed: Annotated[
        int | None,
        typer.Option(help="Seed of the random prompts for another MODEL.", min=0, show_default="0"),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help="Compile the CHECKPOINT for this engine of others, such as onnxruntime, and "
            "compare the bits with what it computes."
        ),
    ] = None,
    threads: Threads = None,
    target: RunTarget = None,
    quiet: Progressless = False,
    json: Json = False,
) -> None:
    """Compare a compiled model with its checkpoint, or its bits with another model or engine.

    Exits with code 1 if they differ.
    """
    is_artifact = against.is_file() and engine is None
    _check_options(is_artifact or engine is not None, text, seed)
    session = load_language_model(model, threads, target=only(target), verify=True)
    if engine is not None:
        other = _in_engine(engine, against)
        passed = compare_bits(session, other, tokens, seed or 0, quiet, json)
    elif is_artifact:
        other = load_language_model(against, threads, verify=True)
        passed = compare_bits(session, other, tokens, seed or 0, quiet, json)
    else:
        passed = _compare_text(session, against, text, tokens, quiet, json)
    if not passed:
        raise typer.Exit(1)


def _in_engine(engine: str, checkpoint: Path) -> Session:
    """A session that runs a checkpoint in an engine of others. Raises InputError."""
    from mmfree_compiler import compiler
    from mmfree_compiler.backends import files

    if checkpoint.is_file():
        cause = "is for a checkpoint, which is compiled for it"
        raise InputError("engine", cause, "Name a checkpoint folder with --against")
    return compiler.compile(checkpoint, files.target_of_engine(engine)).session


def _check_options(is_artifact: bool, text: Path | None, seed: int | None) -> None:
    """Raise InputError on an option that this comparison does not have."""
    if is_artifact and text is not None:
        cause = "is for a checkpoint; compiled models are compared on random prompts"
        raise InputError("text", cause, "Leave it out, or choose prompts with --seed")
    if not is_artifact and seed is not None:
        cause = "is for another compiled model; a checkpoint is compared on a text"
        raise InputError("seed", cause, "Leave it out, or choose a text with --text")


def _compare_text(
    session: Session, against: Path, text: Path | None, tokens: int, quiet: bool, json: bool
) -> bool:
    """Print how far `session` is from a checkpoint on a text; whether that is close enough."""
    from mmfree_compiler import models
    from mmfree_compiler.verify import verify as compare

    reference = models.load_checkpoint(against)
    with progress(TextColumn("{task.description}"), BarColumn(), quiet=quiet or json) as bar:
        task = bar.add_task("read the text", total=None)
        wanted = tokens + 1  # nothing predicts the first one
        read = _held_out(wanted) if text is None else _read(text, wanted)
        ids = _tokens(session, read)[:wanted]
        bar.update(task, description="compare", total=len(ids) - 1)
        report = compare(session, reference, ids, lambda count: bar.advance(task, count))
    document = _finite(asdict(report) | {"ratio": report.ratio, "passed": report.passed})
    emit(json, document, facts(_rows(report)))
    return report.passed


def _held_out(tokens: int) -> bytes:
    """Held-out text of Python's documentation, at most 16 bytes per token."""
    from mmfree_compiler.models.corpus import Corpus, python_corpus

    held_out = Corpus.of(python_corpus()).held_out[: 16 * tokens].numpy()
    return held_out[held_out < BYTES].astype("uint8").tobytes()


def _read(path: Path, tokens: int) -> bytes:
    """The beginning of a text file: as many bytes as `tokens` tokens may have."""
    try:
        with path.open("rb") as file:
            text = file.read(LONGEST_TOKEN * tokens)
    except OSError as error:
        cause = error.strerror or "unreadable"
        raise InputError(str(path), cause, "Pass a text file") from None
    if not text:
        raise InputError(str(path), "is empty", "Pass a text file")
    return text


def _tokens(session: Session, text: bytes) -> NDArray[np.int64]:
    """Ids (N,) from the artifact's tokenizer; without one, bytes if the vocabulary has 256 ids."""
    import numpy as np

    if session.tokenizer is not None:
        # What replaces a byte that is not UTF-8 takes three.
        return session.encode(text.decode(errors="replace"), max_prompt_bytes=3 * len(text))
    if session.language_model.vocab_size < BYTES:
        size = session.language_model.vocab_size
        cause = f"has no tokenizer, and its {size} ids are too few for bytes"
        raise InputError("artifact", cause, "Compile a checkpoint that has a tokenizer.json")
    return session.encode(np.frombuffer(text, np.uint8))


def _finite(document: dict[str, float]) -> dict[str, float | None]:
    """With null where a model gives NaN or infinity, which JSON cannot hold."""
    return {name: x if math.isfinite(x) else None for name, x in document.items()}


def _rows(report: Report) -> list[tuple[str, str]]:
    verdict = "the same model" if report.passed else "NOT the same model"
    return [
        ("predicted tokens", f"{report.tokens:,}"),
        ("KL divergence", f"mean {report.kl_mean:.3g}, max {report.kl_max:.3g} nats"),
        ("top-1 agreement", f"{report.top1_agreement:.3%}"),
        ("perplexity", f"{report.perplexity:.5g}, reference {report.reference_perplexity:.5g}"),
        ("perplexity ratio", f"{report.ratio:.6f}"),
        ("verdict", f"{verdict}: the ratio is {'' if report.passed else 'not '}within 1 ± 0.001"),
    ]
