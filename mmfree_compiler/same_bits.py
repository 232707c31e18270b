"""Whether two artifacts of one model give the same bits, as docs/arithmetic.md promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.backends.numpy_states import NumpyStates
from mmfree_compiler.errors import InputError
from mmfree_compiler.runtime import Session, State

Floats = NDArray[np.float32]

# Sequences side by side, tokens per call, and whether the states begin with random numbers rather
# than zeros. More than 128 tokens are more than one call of a kernel.
CASES = ((1, 1, False), (1, 150, False), (2, 64, True), (5, 7, True), (7, 1, True))


@dataclass(frozen=True)
class Difference:
    """Where two models differ first: `token` of `prompt`, both counted from 0, in `output`.

    `output` is "logits" or "state NAME"; a state is compared after the last token of a call.
    """

    prompt: int
    token: int
    output: str


@dataclass(frozen=True)
class Report:
    """Of `numbers` fp32 numbers, logits and states of `tokens` tokens; all NaN count as one."""

    prompts: int
    tokens: int
    numbers: int
    differing_bits: int
    first: Difference | None

    @property
    def passed(self) -> bool:
        """Whether all bits are equal."""
        return self.differing_bits == 0


@dataclass
class _Found:
    """Running totals over calls."""

    prompts: int = 0
    tokens: int = 0
    numbers: int = 0
    bits: int = 0
    first: Difference | None = None

    def add(self, output: str, ours: Floats, theirs: Floats, tokens: range) -> None:
        """Numbers (B, T, ...) of both models after each of `tokens`, positions in the prompts."""
        different = _bits(ours) ^ _bits(theirs)
        self.numbers += different.size
        if not different.any():
            return
        self.bits += int(np.unpackbits(different[different != 0].view(np.uint8)).sum())
        where = different.reshape(*different.shape[:2], -1).any(-1)
        token, prompt = np.argwhere(where.T)[0].tolist()
        self.first = self.first or Difference(self.prompts + prompt, tokens[token], output)


def same_bits(
    ours: Session,
    theirs: Session,
    tokens: int,
    seed: int,
    on_call: Callable[[int], None] = lambda _: None,
) -> Report:
    """Compare logits and states over random prompts of about `tokens` tokens, at least 1 each.

    The prompts are read in batches and chunks of several sizes (CASES), each model continuing its
    own states. `on_call` is called with the number of tokens of each call. Raises InputError unless
    both are artifacts of one language model.
    """
    _check_one_model(ours, theirs)
    random, found = np.random.default_rng(seed), _Found()
    for batch, chunk, is_random in CASES:
        length = -(-tokens // (len(CASES) * batch))
        ids = random.integers(ours.language_model.id_limit, size=(batch, length))
        state = _random_state(ours, batch, random) if is_random else ours.zero_state(batch)
        states = [state, state]
        for start in range(0, length, chunk):
            part = ids[:, start : start + chunk]
            read = range(start, start + part.shape[1])
            for output, a, b in _outputs((ours, theirs), part, states):
                found.add(output, a, b, read if output == "logits" else read[-1:])
            found.tokens += part.size
            on_call(part.size)
        found.prompts += batch
    return Report(found.prompts, found.tokens, found.numbers, found.bits, found.first)


def _check_one_model(ours: Session, theirs: Session) -> None:
    sizes = [session.language_model.vocab_size for session in (ours, theirs)]
    if sizes[0] != sizes[1]:
        cause = f"has {sizes[0]} logits, the other model has {sizes[1]}"
        raise InputError("model", cause, "Compare two artifacts of one checkpoint")
    if ours.artifact.manifest.fingerprint != theirs.artifact.manifest.fingerprint:
        cause = "has another fingerprint: other weights, or another version compiled it"
        hint = "Compile both from one checkpoint, with one version"
        raise InputError("model", cause, hint)


def _random_state(session: Session, batch: int, random: np.random.Generator) -> State:
    """As of sequences that have seen no tokens, with normal numbers in place of the zeros."""
    zero = session.zero_state(batch)
    arrays = {
        name: random.standard_normal(array.shape, np.float32)
        for name, array in zero.export().items()
    }
    return State(NumpyStates(arrays, batch), zero.model, zero.length, zero.slots)


def _outputs(
    sessions: tuple[Session, Session], ids: NDArray[np.int64], states: list[State]
) -> Iterator[tuple[str, Floats, Floats]]:
    """Run both on ids (B, T): the logits (B, T, V), then each state (B, 1, ...). Moves `states`."""
    results = [session(ids, state) for session, state in zip(sessions, states, strict=True)]
    (ours, states[0]), (theirs, states[1]) = results
    yield "logits", ours, theirs
    parts = [state.export() for state in states]
    for name, part in parts[0].items():
        yield f"state {name}", part[:, None], parts[1][name][:, None]


def _bits(x: Floats) -> NDArray[np.uint32]:
    return np.where(np.isnan(x), np.float32(np.nan), x).view(np.uint32)
