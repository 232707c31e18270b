"""Chat with a compiled model; every turn continues from the state that the last one left.

    make demo                                  # compiles the demo model
    python examples/chat.py build/demo.mmfree

The demo model has read Python's documentation only: it continues your text and does not answer.
Ctrl-C stops a reply, Ctrl-D (or Ctrl-C at the prompt) leaves.
"""

from __future__ import annotations

import argparse

from mmfree_compiler.runtime import Session, State, load


def reply(session: Session, text: str, state: State | None, max_new_tokens: int) -> State | None:
    """Print what follows `text` as it is generated, and return the state after it."""
    generation = session.generate(
        text, state=state, max_new_tokens=max_new_tokens, temperature=0.7, top_p=0.95
    )
    try:
        for token in generation:
            print(token.text, end="", flush=True)
    except KeyboardInterrupt:
        print(" [stopped; this turn is forgotten]")
        return state  # `generate` works on a copy, so this is still the state before the turn
    print()
    return generation.state


def main() -> None:
    parser = argparse.ArgumentParser(description="Chat with a compiled model.")
    parser.add_argument("model", help="a model.mmfree")
    parser.add_argument("--threads", type=int, help="default: all CPUs of this process")
    parser.add_argument("--max-new-tokens", type=int, default=200, help="per turn")
    options = parser.parse_args()

    session = load(options.model, threads=options.threads)
    state: State | None = None  # nothing seen yet
    while True:
        try:
            text = input("> ")
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if text:
            state = reply(session, text, state, options.max_new_tokens)


if __name__ == "__main__":
    main()
