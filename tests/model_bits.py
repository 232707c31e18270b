"""What a session makes of fixed tokens, as SHA-256 and as texts: equal for equal bits.

It does not need torch.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.runtime import Sampling, Session, State

SEQUENCES, PROMPT, STEPS = 7, 33, 8
LENGTHS = [PROMPT, 1, 7, 20, 2, PROMPT, 16]  # of the sequences of a ragged batch
THREADS, BATCHES, CHUNKS = (1, 2), (1, 2, SEQUENCES), (1, 5, 64)
# (threads, sequences at a time, tokens of a chunk): each pair of the latter once.
WAYS = [(1, 1, 1), (1, 2, 5), (1, SEQUENCES, 64), (2, 1, 64), (2, 2, 1), (2, SEQUENCES, 5)]
SAMPLINGS = {
    "greedy": Sampling(max_new_tokens=12, stop_tokens=(), temperature=0),
    "sampled": Sampling(max_new_tokens=12, stop_tokens=(), temperature=1, top_p=0.95),
}
Texts = dict[str, list[list[int]]]
Ids = NDArray[np.int64]


def tokens(session: Session) -> Ids:
    """(SEQUENCES, PROMPT + STEPS)."""
    shape = (SEQUENCES, PROMPT + STEPS)
    return np.random.default_rng(11).integers(session.language_model.vocab_size, size=shape)


def digest(session: Session, batch: int = SEQUENCES, chunk: int = PROMPT) -> str:
    """Of all logits and of the states at the end, for all sequences, `batch` of them at a time.

    The prompt is read in chunks, the rest token by token.
    """
    parts = [_run(session, rows, chunk) for rows in _split(tokens(session), batch, 0)]
    return _hashed(np.concatenate(whole) for whole in zip(*parts, strict=True))


def _run(session: Session, ids: Ids, chunk: int) -> Iterator[np.ndarray]:
    """Logits (B, T, V) of ids (B, T), then each state (B, ...)."""
    state, logits = None, []
    for piece in (*_split(ids[:, :PROMPT], chunk, 1), *_split(ids[:, PROMPT:], 1, 1)):
        made, state = session(piece, state)
        logits.append(made)
    yield np.concatenate(logits, 1)
    assert state is not None
    yield from _parts(session, state)


def _split(ids: Ids, size: int, axis: int) -> list[Ids]:
    """Parts of `size` along an axis; the last one may be smaller."""
    return np.split(ids, range(size, ids.shape[axis], size), axis)


def ragged_digest(session: Session, together: bool) -> str:
    """As `digest`, of prompts of LENGTHS: in one batch padded on the left, or each alone."""
    ids, made = tokens(session)[:, :PROMPT], []
    if together:
        mask = np.arange(PROMPT) >= PROMPT - np.array(LENGTHS)[:, None]
        logits, state = session(ids, mask=mask.astype(np.int64))
        made = [(logits[row], state[row]) for row in range(SEQUENCES)]
    else:
        for row, length in enumerate(LENGTHS):
            logits, state = session(ids[[row], -length:])
            made.append((logits[0], state))
    pairs = zip(LENGTHS, made, strict=True)
    return _hashed(
        part
        for length, (logits, state) in pairs
        for part in (logits[-length:], *_parts(session, state))
    )


def texts(session: Session, together: bool) -> Texts:
    """Greedy and seeded texts after prompts of LENGTHS: in one batch, or each alone."""
    rows = zip(tokens(session), LENGTHS, strict=True)
    prompts = [ids[:length].tolist() for ids, length in rows]
    made: Texts = {}
    for name, sampling in SAMPLINGS.items():
        if together:
            found = session.generate_batch(prompts, sampling, seed=5)
        else:
            found = [session.generate(p, sampling, seed=5 + i) for i, p in enumerate(prompts)]
        for generation in found:
            deque(generation, maxlen=0)  # run to its end; those of a batch have been
        made[name] = [generation.ids for generation in found]
    return made


def state_within(session: Session) -> str:
    """The hash of the state of a generation that goes on: what runs ahead is not in it."""
    generation = session.generate(
        tokens(session)[0, :PROMPT].tolist(), SAMPLINGS["sampled"], seed=5
    )
    for _ in range(STEPS // 2):
        next(generation)
    return _hashed(_parts(session, generation.state))


def _parts(session: Session, state: State) -> Iterator[np.ndarray]:
    for part in session.artifact.manifest.states:
        yield state.part(part.name)


def _hashed(arrays: Iterable[np.ndarray]) -> str:
    """Every NaN counts as every other."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.where(np.isnan(array), np.float32(np.nan), array).tobytes())
    return found.hexdigest()
