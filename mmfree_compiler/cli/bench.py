"""`mmfree bench`: measures how fast a compiled model loads, prefills and decodes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, TextColumn
from rich.table import Table

from mmfree_compiler.cli.loading import load_language_model
from mmfree_compiler.cli.measure import Spread, peak_rss
from mmfree_compiler.cli.options import Json, Progressless, RunTarget, only
from mmfree_compiler.cli.output import emit, progress
from mmfree_compiler.cli.profiling import show_profile
from mmfree_compiler.cli.projecting import projected, show
from mmfree_compiler.errors import InputError
from mmfree_compiler.tables import facts, grid, size
from mmfree_compiler.wording import counted

if TYPE_CHECKING:
    from mmfree_compiler.runtime import Session

FEWEST_RUNS = 5
MOST_TOKENS = 1 << 20  # per prompt, whose ids are held in memory


def bench(
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="MODEL",
            help="Compiled model, a .mmfree or .onnx file; with --profile, a checkpoint folder.",
        ),
    ] = None,
    prompt_tokens: Annotated[
        int, typer.Option(help="Number of prompt tokens.", min=1, max=MOST_TOKENS)
    ] = 128,
    new_tokens: Annotated[int, typer.Option(help="Number of tokens to generate.", min=2)] = 64,
    threads: Annotated[
        str, typer.Option(help="Thread counts to measure, such as 1,2, if the target uses threads.")
    ] = "1",
    target: RunTarget = None,
    repeat: Annotated[
        int, typer.Option(help="Number of runs, after one warm-up run.", min=FEWEST_RUNS)
    ] = 5,
    shape: Annotated[
        str | None, typer.Option(help="Instead of a model: a published shape, such as 1.3B.")
    ] = None,
    gantt: Annotated[
        Path | None, typer.Option(help="Draw a projection into this file, .svg or .png.")
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Measure each stage of a decode step of a checkpoint.")
    ] = False,
    quiet: Progressless = False,
    json: Json = False,
) -> None:
    """Measure load time, prefill and decode speed: median, lowest and highest of several runs.

    Where the target's hardware is simulated, show what its cycle model says instead.
    """
    chosen = only(target)
    if profile:
        show_profile(model, chosen, thread_counts(threads)[0], json)
        return
    projection = projected(model, chosen, shape)
    if projection is not None:
        show(projection, json, gantt)
        return
    assert model is not None
    if gantt is not None:
        hint = "Leave it out, or name a target whose hardware is simulated"
        raise InputError("--gantt", "draws projections, and this model is measured", hint)
    document, loading, measured = _measure(
        model, chosen, threads, repeat, (prompt_tokens, new_tokens), quiet or json
    )
    title = f"\n{counted(prompt_tokens, 'prompt token')}, {new_tokens} new tokens, {repeat} runs"
    emit(json, document, _overview(document, loading), _table(title, measured))


def _measure(
    model: Path,
    target: str | None,
    threads: str,
    repeat: int,
    tokens: tuple[int, int],
    quiet: bool,
) -> tuple[dict[str, Any], Spread, list[_Figures]]:
    """The document of all measurements, and its parts; `tokens` are those of a prompt and new."""
    from mmfree_compiler.backends.interface import OnDevice

    counts = thread_counts(threads) if _takes_threads(model, target) else [None]
    columns = (TextColumn("{task.description}"), BarColumn())
    with progress(*columns, quiet=quiet) as bar:
        task = bar.add_task("load", total=1 + len(counts) * (1 + repeat))
        loading = _load_seconds(model, target, repeat)
        bar.advance(task)
        measured = []
        for count in counts:
            bar.update(task, description=_label(count))
            session = load_language_model(model, count, target=target)
            runs = []
            for run in _runs(session, *tokens, 1 + repeat):
                runs.append(run)
                bar.advance(task)
            measured.append(_Figures.of(session, count, tokens[0], runs[1:]))
    launcher = session.launcher
    document = {
        "model": str(model),
        "target": session.artifact.entry.kind,
        "build": launcher.build,
        "prompt_tokens": tokens[0],
        "new_tokens": tokens[1],
        "repeat": repeat,
        "load_seconds": asdict(loading),
        "packed_weight_bytes": launcher.weight_bytes,
        "peak_rss_bytes": peak_rss(),
        "device_bytes": launcher.device_bytes if isinstance(launcher, OnDevice) else None,
        "threads": [asdict(figures) for figures in measured],
    }
    return document, loading, measured


def thread_counts(threads: str) -> list[int]:
    """Parse "1,2". Raises InputError on a number of threads that a session does not accept."""
    from mmfree_compiler.threads import MAX_THREADS, resolve_threads

    try:
        return [resolve_threads(int(count)) for count in threads.split(",")]
    except ValueError:  # InputError is a ValueError
        cause = f"not whole numbers from 1 to {MAX_THREADS}, separated by commas"
        raise InputError(f"threads {threads!r}", cause, "Write --threads 1,2") from None


def _takes_threads(model: Path, target: str | None) -> bool:
    from mmfree_compiler import backends

    runs = load_language_model(model, target=target).artifact.entry
    return "threads" in backends.get(runs.kind).options


def _load_seconds(model: Path, target: str | None, repeat: int) -> Spread:
    """Seconds to load the model. The first load is not counted: it fills the page cache."""
    seconds = []
    for _ in range(1 + repeat):
        started = time.perf_counter()
        load_language_model(model, target=target)
        seconds.append(time.perf_counter() - started)
    return Spread.of(seconds[1:])


@dataclass(frozen=True)
class _Run:
    """Seconds until the first token, and seconds per token after it."""

    prefill: float
    step: float


def _runs(session: Session, prompt: int, new: int, count: int) -> Iterator[_Run]:
    """Generate greedily from a fixed prompt. The times include sampling and detokenizing."""
    import numpy as np

    ids = np.random.default_rng(0).integers(session.language_model.vocab_size, size=prompt)
    for _ in range(count):
        started = time.perf_counter()
        generation = session.generate(ids, max_new_tokens=new, temperature=0, stop_tokens=())
        next(generation)
        first = time.perf_counter()
        for _token in generation:
            pass
        yield _Run(first - started, (time.perf_counter() - first) / (new - 1))


@dataclass(frozen=True)
class _Figures:
    """The measurements with one number of threads; None if the target does not take any."""

    threads: int | None
    prefill_tokens_per_second: Spread
    decode_tokens_per_second: Spread
    milliseconds_per_token: Spread
    gigabytes_per_second: Spread

    @classmethod
    def of(cls, session: Session, threads: int | None, prompt: int, runs: list[_Run]) -> _Figures:
        packed = session.launcher.weight_bytes
        return cls(
            threads,
            Spread.of([prompt / run.prefill for run in runs]),
            Spread.of([1 / run.step for run in runs]),
            Spread.of([1e3 * run.step for run in runs]),
            Spread.of([packed / run.step / 1e9 for run in runs]),
        )


def _overview(document: dict[str, Any], loading: Spread) -> Table:
    rows = [
        ("target", document["target"]),
        ("build", document["build"]),
        ("load", f"{1e3 * loading.median:.1f} ms"),
        ("packed weights", size(document["packed_weight_bytes"])),
        ("peak memory", size(document["peak_rss_bytes"])),
    ]
    if document["device_bytes"] is not None:
        rows.append(("memory of the device", size(document["device_bytes"])))
    return facts(rows)


MEASURES = {
    "prefill_tokens_per_second": "prefill tokens/s",
    "decode_tokens_per_second": "decode tokens/s",
    "milliseconds_per_token": "ms per token",
    "gigabytes_per_second": "GB/s of weights",
}


def _table(title: str, measured: list[_Figures]) -> Table:
    rows = []
    for figures in measured:
        for field, label in MEASURES.items():
            spread = getattr(figures, field)
            numbers = (f"{x:,.3f}" for x in (spread.median, spread.low, spread.high))
            rows.append((_row(label, figures.threads), *numbers))
    return grid(title, ("", "median", "lowest", "highest"), rows)


def _label(threads: int | None) -> str:
    return "measure" if threads is None else counted(threads, "thread")


def _row(label: str, threads: int | None) -> str:
    return label if threads is None else f"{label}, {counted(threads, 'thread')}"
