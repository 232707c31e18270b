"""Decoding on the device, in the process that interprets kernels (triton_process.py).

Functions return what differs from the reference: nothing, where all is equal.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import islice
from typing import Any
from unittest import mock

import numpy as np
import torch
from cuda_models import IDS, session
from op_modules import mm
from torch import Tensor, nn

import mmfree_compiler as mmf
from mmfree_compiler.backends.cuda.lanes import AHEAD, RING
from mmfree_compiler.backends.cuda.run.decoding import CudaDecoding
from mmfree_compiler.backends.cuda.run.lane_memory import LaneMemory
from mmfree_compiler.backends.cuda.run.launcher import CudaLauncher
from mmfree_compiler.backends.cuda.run.states import CudaStates
from mmfree_compiler.backends.interface import Batch
from mmfree_compiler.errors import InputError, StateError
from mmfree_compiler.runtime import Sampling, Session, State
from mmfree_compiler.runtime.choices import choices
from mmfree_compiler.runtime.generation import Generation

V = 37
PROMPTS = [[1, 2, 3], [4], [9, 8], [7, 7, 7, 30], [20]]
SAMPLINGS = {
    "greedy": Sampling(temperature=0, repetition_penalty=1.4),
    "sampled": Sampling(temperature=1.5, top_k=20, top_p=0.9),
    "all": Sampling(temperature=3.0),
}


class SmallLM(nn.Module):
    """Both kinds of states in few kernels; no product, which the interpreter is slow at."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.table = torch.randn(V, V, generator=generator)
        self.taps = torch.randn(V, 3, generator=generator)
        self.size = torch.tensor([3.0])

    def forward(self, ids: Tensor) -> Tensor:
        x = mm.short_conv(mm.embedding(ids, self.table), self.taps, None)
        out: Tensor = mm.mul(mm.mlgru_scan(x, mm.sigmoid(x)), self.size)
        return out


@cache
def sessions() -> tuple[Session, Session]:
    """Ours, and that of the reference."""
    model = SmallLM()
    theirs = mmf.compile(model, "reference", check=False, example_inputs=IDS).session
    return session(model, IDS), theirs


def _launcher() -> CudaLauncher:
    launcher = sessions()[0].launcher
    assert isinstance(launcher, CudaLauncher)
    return launcher


def _same_state(a: State, b: State) -> bool:
    found, expected = a.export(), b.export()
    return a.length == b.length and all(np.array_equal(found[k], expected[k]) for k in expected)


def _both(**options: Any) -> tuple[Generation, Generation]:
    ours, theirs = (each.generate(PROMPTS[0], seed=3, **options) for each in sessions())
    return ours, theirs


def generations() -> list[str]:
    """One after another, with the state after each token, while the device is ahead."""
    differing = []
    for name in ("greedy", "sampled"):
        ours, theirs = _both(sampling=SAMPLINGS[name], max_new_tokens=RING + 2, stop_tokens=())
        for a, b in zip(ours, theirs, strict=True):
            same = a.id == b.id and abs(a.logprob - b.logprob) < 1e-6
            differing += [] if same else [f"{name}: token {len(ours.tokens)}"]
            if name == "sampled" and not _same_state(ours.state, theirs.state):
                differing.append(f"state {len(ours.tokens)}")
        differing += [] if _same_state(ours.state, theirs.state) else [f"{name}: last state"]
    return differing


def ends() -> list[str]:
    """A stop token ends a generation in the middle of what the device was told to run."""
    whole, _ = _both(sampling=SAMPLINGS["all"], max_new_tokens=9, stop_tokens=())
    stop = [token.id for token in whole][4]
    ours, theirs = _both(sampling=SAMPLINGS["all"], stop_tokens=[stop])
    same = [t.id for t in ours] == [t.id for t in theirs]
    same &= ours.finish_reason == theirs.finish_reason == "stop_token"
    return [] if same and _same_state(ours.state, theirs.state) else ["the end"]


def batches() -> list[str]:
    """Sequences leave at different times; batches become smaller, and states stay exact."""
    options: dict[str, Any] = {"seed": 5, "max_new_tokens": 8, "stop_tokens": range(0, V, 4)}
    ours, theirs = (
        each.generate_batch(PROMPTS, SAMPLINGS["all"], **options) for each in sessions()
    )
    lengths = {len(one.ids) for one in ours}
    differing = [] if len(lengths) > 2 else ["lengths that differ"]
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        same = a.ids == b.ids and a.finish_reason == b.finish_reason
        differing += [] if same and _same_state(a.state, b.state) else [f"sequence {i}"]
    return differing


def turns() -> list[str]:
    """Generations and calls of one session between each other's steps."""
    ours, theirs = sessions()
    found, expected = (
        [list(ids) for ids in zip(*_turns(each), strict=True)] for each in (ours, theirs)
    )
    return [] if found == expected else ["turns"]


def _turns(session: Session) -> Iterator[tuple[int, int, int]]:
    ones = (session.generate(p, SAMPLINGS["all"], seed=i) for i, p in enumerate(PROMPTS[:2]))
    for a, b in islice(zip(*ones, strict=True), 5):
        yield a.id, b.id, int(session([[a.id, b.id, 1]])[0][0, -1].argmax())


def threads() -> list[str]:
    """Two at once."""
    ours, theirs = sessions()
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(partial(_ids, ours), PROMPTS[:2]))
    return [] if found == [_ids(theirs, prompt) for prompt in PROMPTS[:2]] else ["threads"]


def _ids(session: Session, prompt: list[int]) -> list[int]:
    options: Any = {"seed": 2, "max_new_tokens": 4, "stop_tokens": ()}
    return [token.id for token in session.generate(prompt, SAMPLINGS["all"], **options)]


def _decoding(state: State, pending: int, steps: int) -> CudaDecoding:
    settings = choices([SAMPLINGS["all"]], [11], np.zeros((1, V), np.bool_))
    first = np.array([state.length[0]])
    batch = Batch((np.array([pending]),), np.zeros(1, np.int32), first, np.arange(1))
    assert isinstance(state.states, CudaStates)
    return _launcher().decode(batch, settings, state.states, steps)


def closing(taken: int, steps: int) -> list[str]:
    """The states after some tokens of a decoding, copied before it is closed, and left by it."""
    ours, theirs = sessions()
    state = ours.prefill(PROMPTS[0])
    decoding = _decoding(state, 5, steps)
    drawn = [int(next(decoding).ids[0]) for _ in range(taken)]
    copied = decoding.take([0])
    decoding.close()
    decoding.close()
    state.advance([taken])
    expected = theirs.prefill([*PROMPTS[0], 5, *drawn][: 3 + taken])
    found = {"left": state, "copied": State(copied, state.model, state.length, state.slots)}
    differing = [name for name, each in found.items() if not _same_state(each, expected)]
    return differing + ([] if next(decoding, None) is None else ["a step after the end"])


def _raising(method: str, call: int) -> Any:
    """LaneMemory, interrupted behind the call of this number of a method."""
    calls, real = iter(range(100)), getattr(LaneMemory, method)

    def interrupted(*arguments: Any) -> Any:
        result = real(*arguments)
        if next(calls) == call:
            raise KeyboardInterrupt
        return result

    return mock.patch.object(LaneMemory, method, interrupted)


def _until_interrupted(tokens: Iterable[Any], method: str, call: int) -> list[Any]:
    """What was yielded before it."""
    found: list[Any] = []
    with _raising(method, call):
        try:
            found.extend(tokens)
        except KeyboardInterrupt:
            return found
    raise AssertionError("nothing was interrupted")


def interrupts(method: str) -> list[str]:
    """Ctrl-C in each step: the states are those before it; a generation says that it was cut."""
    ours, theirs = sessions()
    differing = []
    for call in (AHEAD, AHEAD + 1):
        state = ours.prefill(PROMPTS[0])
        found = _until_interrupted(_decoding(state, 5, 50), method, call)
        drawn = [int(each.ids[0]) for each in found]
        state.advance([len(drawn)])
        expected = theirs.prefill([*PROMPTS[0], 5, *drawn][: 3 + len(drawn)])
        differing += [] if _same_state(state, expected) else [f"call {call}"]
    generation, _ = _both(sampling=SAMPLINGS["all"])
    _until_interrupted(generation, method, AHEAD)
    try:
        next(generation)
    except StateError:
        return differing
    return [*differing, "a generation that goes on"]


def damaged() -> str:
    """The error of a generation whose logits become NaN on the device."""
    generation, _ = _both(sampling=SAMPLINGS["all"])
    next(generation)
    states = generation._state.states
    bad = {name: np.full_like(array, np.inf) for name, array in states.export().items()}
    states.put(slice(None), mock.Mock(export=lambda: bad, __len__=lambda _: 1))
    try:
        next(generation)
    except InputError as error:
        return str(error)
    return "no error"


def rows_left() -> list[int]:
    """State rows in use after generations that were dropped in the middle, and finished ones."""
    arena, counts = _launcher()._arena, []
    for _ in range(2):
        generation, _ = _both(sampling=SAMPLINGS["all"])
        list(islice(generation, 3))
        del generation
        sessions()[0].generate_batch(PROMPTS[:2], max_new_tokens=2)
        gc.collect()
        counts.append(arena._count - len(arena._free))
    return counts
