"""`mmfree run`: generates text with a compiled model."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmfree_compiler.cli.loading import load_language_model
from mmfree_compiler.cli.measure import peak_rss
from mmfree_compiler.cli.options import ArtifactPath, Json, RunTarget, Signer, Threads, only
from mmfree_compiler.cli.output import emit, show
from mmfree_compiler.errors import InputError
from mmfree_compiler.tables import facts, size

if TYPE_CHECKING:
    from mmfree_compiler.runtime import Session


def run(
    model: ArtifactPath,
    prompt: Annotated[str, typer.Option(help="Text to continue; - reads it from stdin.")],
    # Defaults are copies of runtime.Sampling's: importing it here would slow every command down.
    max_new_tokens: Annotated[int, typer.Option(help="Generate at most this many tokens.")] = 128,
    temperature: Annotated[float, typer.Option(help="Sampling temperature; 0 is greedy.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="Sample from the K likeliest tokens; 0 is all.")] = 0,
    top_p: Annotated[
        float, typer.Option(help="Sample from the likeliest tokens of total probability P.")
    ] = 1.0,
    repetition_penalty: Annotated[
        float, typer.Option(help="Penalty for tokens seen before; 1 disables it.")
    ] = 1.0,
    seed: Annotated[
        int | None,
        typer.Option(help="Random seed; equal seeds give equal texts.", show_default="random"),
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="Stop before this text; may be repeated."),
    ] = None,
    allow_special_tokens: Annotated[
        bool,
        typer.Option(
            "--allow-special-tokens",
            help="Read special tokens such as </s> in the prompt as those tokens, not as text.",
        ),
    ] = False,
    max_prompt_bytes: Annotated[
        int, typer.Option(help="Refuse longer prompts; a long one takes 190 times its size.")
    ] = 1 << 20,
    threads: Threads = None,
    target: RunTarget = None,
    require_signature: Signer = None,
    stats: Annotated[
        bool, typer.Option("--stats", help="Print speed and memory use to stderr.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="Print the generated text without the prompt.")
    ] = False,
    json: Json = False,
) -> None:
    """Continue a text with a compiled model: print it, and then each token as it is generated."""
    from mmfree_compiler.runtime import Sampling

    sampling = Sampling(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        repetition_penalty=repetition_penalty,
        stop=stop or (),
    )
    text = _stdin() if prompt == "-" else prompt
    signed = {"require_signature": require_signature}
    session = load_language_model(model, threads, target=only(target), **signed)
    ids = session.encode(
        text, allow_special_tokens=allow_special_tokens, max_prompt_bytes=max_prompt_bytes
    )
    generation = session.generate(ids, sampling, seed=seed)
    if not (quiet or json):
        show(text)
    started = time.perf_counter()
    moments = []  # when each token was generated, in seconds
    for token in generation:
        moments.append(time.perf_counter() - started)
        if not json:
            show(token.text)
    figures = _target(session) | _figures(ids.size, moments)
    if json:
        made = {"text": generation.text, "tokens": generation.ids}
        emit(True, made | {"finish_reason": generation.finish_reason, "stats": figures})
        return
    print(flush=True)
    if stats:
        _print_stats(figures)


def _stdin() -> str:
    if sys.stdin is None:  # the caller closed it
        raise InputError("stdin", "is closed", "Pipe text into it, or pass the text to --prompt")
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise InputError("stdin", f"is not UTF-8: {error}", "Convert the text to UTF-8") from None


def _target(session: Session) -> dict[str, Any]:
    """The target that ran, and those of the model that were preferred and do not run here."""
    return {
        "target": session.artifact.entry.kind,
        "build": session.launcher.build,
        "refused": {target: error.fault for target, error in session.refused.items()},
    }


def _figures(prompt_tokens: int, moments: list[float]) -> dict[str, Any]:
    """Speed and memory. The prompt runs before the first token; the rest is decoding."""
    steps, seconds = len(moments) - 1, moments[-1] - moments[0]
    return {
        "prompt_tokens": prompt_tokens,
        "new_tokens": len(moments),
        "prefill_tokens_per_second": prompt_tokens / moments[0],
        "decode_tokens_per_second": steps / seconds if steps else None,
        "peak_rss_bytes": peak_rss(),
    }


def _print_stats(figures: dict[str, Any]) -> None:
    from rich.console import Console

    decode = figures["decode_tokens_per_second"]
    refused = figures["refused"].items()
    rows = (
        ("target", f"{figures['target']}, build {figures['build']}"),
        *((f"not {target}", cause) for target, cause in refused),
        ("prefill", f"{figures['prefill_tokens_per_second']:.1f} tokens/s"),
        ("decode", f"{decode:.1f} tokens/s" if decode else "one token only"),
        ("peak memory", size(figures["peak_rss_bytes"])),
    )
    Console(stderr=True, highlight=False).print(facts(rows))
