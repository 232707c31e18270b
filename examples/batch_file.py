"""Continue every line of a text file; write one JSON object per line.

    python examples/batch_file.py build/demo.mmfree prompts.txt completions.jsonl

Prompts are decoded side by side, `--batch` of them at a time: one pass over the weights makes a
token for each. Neither the file of prompts nor the results are ever in memory as a whole.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from mmfree_compiler.runtime import Session, load


def chunks(lines: Iterable[str], size: int) -> Iterator[list[str]]:
    """The lines that are not blank, without their line ends, in lists of at most `size`."""
    prompts = (line.rstrip("\n") for line in lines if line.strip())
    while chunk := list(islice(prompts, size)):
        yield chunk


def complete(
    session: Session, lines: Iterable[str], batch: int, seed: int, **settings: Any
) -> Iterator[dict[str, object]]:
    """One result per prompt, in order. Prompt i has the seed `seed + i`, for every `batch`."""
    for prompts in chunks(lines, batch):
        generations = session.generate_batch(prompts, seed=seed, **settings)
        seed += len(prompts)
        for prompt, done in zip(prompts, generations, strict=True):
            yield {"prompt": prompt, "text": done.text, "finish_reason": done.finish_reason}


def main() -> None:
    parser = argparse.ArgumentParser(description="Continue every line of a text file.")
    parser.add_argument("model", help="a model.mmfree")
    parser.add_argument("prompts", help="a text file, one prompt per line")
    parser.add_argument("output", help="the file of JSON lines to write")
    parser.add_argument("--batch", type=int, default=8, help="prompts decoded side by side")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, help="default: all CPUs of this process")
    options = parser.parse_args()

    session = load(options.model, threads=options.threads)
    with open(options.prompts, encoding="utf-8") as lines, open(options.output, "w") as output:
        settings = {"max_new_tokens": options.max_new_tokens, "temperature": 0.7}
        for result in complete(session, lines, options.batch, seed=0, **settings):
            print(json.dumps(result), file=output, flush=True)


if __name__ == "__main__":
    main()
