"""`mmfree run`: text from a compiled model, as it comes."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

import typer

from mmfree_compiler.cli.measure import peak_rss
from mmfree_compiler.cli.options import ArtifactPath, Json, Threads
from mmfree_compiler.cli.output import emit, facts, size
from mmfree_compiler.errors import InputError


def run(
    model: ArtifactPath,
    prompt: Annotated[str, typer.Option(help="The text to continue; - reads it from stdin.")],
    max_new_tokens: Annotated[int, typer.Option(help="Tokens to generate at most.")] = 128,
    temperature: Annotated[float, typer.Option(help="0 always takes the likeliest token.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="Only the K likeliest tokens; 0: all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Only the likeliest of this probability.")] = 1.0,
    repetition_penalty: Annotated[float, typer.Option(help="1 is none.")] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Same seed, same text.")] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="End before this text; repeatable.")
    ] = None,
    threads: Threads = None,
    stats: Annotated[bool, typer.Option("--stats", help="Speed and memory, on stderr.")] = False,
    json: Json = False,
) -> None:
    """Generate text from a compiled model and print it as it comes."""
    from mmfree_compiler.runtime import Sampling, load

    sampling = Sampling(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        repetition_penalty=repetition_penalty,
        stop=stop or (),
    )
    text = _stdin() if prompt == "-" else prompt
    session = load(model, threads)
    generation = session.generate(text, sampling, seed=seed)
    started = time.perf_counter()
    moments = []  # when each token came, in seconds
    for token in generation:
        moments.append(time.perf_counter() - started)
        if not json:
            print(token.text, end="", flush=True)
    figures = _figures(session.encode(text).size, moments)
    if json:
        made = {"text": generation.text, "tokens": generation.ids}
        emit(True, made | {"finish_reason": generation.finish_reason, "stats": figures})
        return
    print(flush=True)
    if stats:
        _print_stats(figures)


def _stdin() -> str:
    if sys.stdin is None:  # the caller closed it
        raise InputError("stdin", "closed", "Pipe a text into it, or write it after --prompt")
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise InputError("stdin", f"no UTF-8: {error}", "Convert the text to UTF-8") from None


def _figures(prompt_tokens: int, moments: list[float]) -> dict[str, Any]:
    """The prompt runs before the first token; what follows is decoding."""
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
    rows = (
        ("prefill", f"{figures['prefill_tokens_per_second']:.1f} tokens/s"),
        ("decode", f"{decode:.1f} tokens/s" if decode else "one token only"),
        ("peak memory", size(figures["peak_rss_bytes"])),
    )
    Console(stderr=True, highlight=False).print(facts(rows))
