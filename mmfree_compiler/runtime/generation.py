"""Generating the tokens that follow a prompt, for one prompt or for several side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.backends.decoding import Choices, Decoding, Drawn
from mmfree_compiler.backends.interface import Batch, States
from mmfree_compiler.errors import InputError, StateError
from mmfree_compiler.runtime.choices import choices
from mmfree_compiler.runtime.language_model import Floats, Ids, LanguageModel
from mmfree_compiler.runtime.next_token import check_largest, sample
from mmfree_compiler.runtime.sampling import Sampling
from mmfree_compiler.runtime.state import State
from mmfree_compiler.runtime.stopping import StopFilter
from mmfree_compiler.runtime.text_stream import TextStream

Slots = NDArray[np.int32]
FinishReason = Literal["length", "stop_token", "stop_string"]


@dataclass(frozen=True)
class Token:
    """A generated token: its id, the text that it completes, its log probability.

    `text` may be empty (an incomplete character, a possible stop string), or include text that was
    held back before. `logprob` is the natural logarithm of the probability under the plain logits,
    before the settings of `Sampling`.
    """

    id: int
    text: str
    logprob: float


class Generation(Iterator[Token]):
    """An iterator that runs the model and yields each token as soon as it is chosen.

    A stop token is yielded too, but adds no text; the text ends before a stop string. `tokens` are
    the tokens yielded so far; `finish_reason` is None until the last one. Not thread-safe.

    A generation that is interrupted in the middle of a token (Ctrl-C) cannot continue, like
    Python's own generators: it keeps its `tokens` and `text`, but the next token and `state` raise
    StateError.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompt: Ids,
        state: State,
        sampling: Sampling,
        stop_tokens: frozenset[int],
        seed: int,
        stream: TextStream | None,
    ) -> None:
        self.tokens: list[Token] = []
        self.finish_reason: FinishReason | None = None
        self._model, self._sampling, self._stop_tokens = model, sampling, stop_tokens
        self._seed, self._stream = seed, stream
        self._stops = StopFilter(sampling.stop_strings)
        self._state = state
        self._decoding: Decoding | None = None  # open while the device chooses tokens
        self._mid_token = False  # stays True after an interrupt: the state may be half updated
        self._pending = prompt  # ids that are not in the state yet
        self._seen = np.zeros(model.vocab_size, np.bool_)
        # A model may read ids that it never predicts: they have no logits to penalize.
        self._seen[prompt[prompt < model.vocab_size]] = True

    def __reduce__(self) -> NoReturn:
        hint = "Copy its tokens, its text or its state"
        raise InputError("generation", "runs a model and cannot be copied or pickled", hint)

    @property
    def ids(self) -> list[int]:
        """Ids of `tokens`."""
        return [token.id for token in self.tokens]

    @property
    def text(self) -> str:
        """The text so far, without text that is held back; empty without a tokenizer."""
        return "".join(token.text for token in self.tokens)

    @property
    def state(self) -> State:
        """The state after the prompt and all of `tokens`: a copy, to continue from.

        Raises StateError after an interrupt in the middle of a token.
        """
        self._check_uninterrupted()
        state = self._state.fork() if self._decoding is None else self._decoded(self._decoding)
        self._model.continue_one(self._pending, state, wanted=0)
        return state

    def __next__(self) -> Token:
        if self.finish_reason is not None:
            raise StopIteration
        self._check_uninterrupted()
        self._mid_token = True
        if self.tokens and self._decodes:
            token = self._decode()
        else:
            logits = self._model.continue_one(self._pending, self._state, wanted=1)
            token = self._choose(logits[0])
        self._mid_token = False
        return token

    @cached_property
    def _decodes(self) -> bool:
        """Whether the device chooses the tokens after the first one."""
        return self._model.decodes(_choices([self]))

    def _decode(self) -> Token:
        """The next token, chosen by the device."""
        if self._decoding is None:
            self._decoding = decoding([self], np.zeros(1, np.int32), self._state.states)
        token = self._accept(next(self._decoding), 0)
        if self.finish_reason is not None:
            self._decoding.close()
            self._decoding = None
        return token

    def _decoded(self, decoding: Decoding) -> State:
        """The state before the pending id, while the device may have run ahead."""
        return replace(self._state, states=decoding.take(slice(None)))

    def _check_uninterrupted(self) -> None:
        if self._mid_token:
            hint = "Generate again from its prompt and the ids so far"
            raise StateError("generation", "was interrupted in the middle of a token", hint)

    def _choose(self, logits: Floats) -> Token:
        """Choose the next token from `logits` (V,), which follow the pending ids."""
        (position,) = self._state.length
        return self._add(*sample(logits, self._seen, self._sampling, self._seed, position))

    def _accept(self, drawn: Drawn, index: int) -> Token:
        """Add the next token, which the device chose when it had read the pending id."""
        check_largest(drawn.peaks[index])
        self._state.advance([1])
        return self._add(int(drawn.ids[index]), float(drawn.logprobs[index]))

    def _add(self, chosen: int, logprob: float) -> Token:
        self._pending = np.array([chosen])
        self._seen[chosen] = True
        token = Token(chosen, self._text(chosen), logprob)
        self.tokens.append(token)
        return token

    def _text(self, chosen: int) -> str:
        """The text that `chosen` completes; decides whether it is the last token."""
        stopped = chosen in self._stop_tokens
        last = stopped or len(self.tokens) + 1 == self._sampling.max_new_tokens
        text, hit = self._stops.push(self._piece(chosen, stopped, last))
        if hit:
            self.finish_reason = "stop_string"
        elif last:
            text += self._stops.flush()
            self.finish_reason = "stop_token" if stopped else "length"
        return text

    def _piece(self, chosen: int, stopped: bool, last: bool) -> str:
        if self._stream is None:
            return ""
        piece = "" if stopped else self._stream.push(chosen)
        return piece + (self._stream.flush() if last else "")


def decoding(generations: Sequence[Generation], slots: Slots, states: States) -> Decoding:
    """Steps of generations with a token each, until the last of them has ended.

    `slots` (N,) int32 are their sequences in `states`.
    """
    batch, settings = _pending(generations, slots), _choices(generations)
    steps = max(one._sampling.max_new_tokens - len(one.tokens) for one in generations)
    return generations[0]._model.decode(batch, settings, states, steps)


def _choices(generations: Sequence[Generation]) -> Choices:
    return choices(
        [one._sampling for one in generations],
        [one._seed for one in generations],
        np.stack([one._seen for one in generations]),
    )


def _pending(generations: Sequence[Generation], slots: Slots) -> Batch:
    """The last token of each, which its state has not read."""
    ids = np.concatenate([one._pending for one in generations])
    positions = np.array([one._state.length[0] for one in generations])
    return Batch((ids,), slots, positions, np.arange(len(generations)))


def run_together(generations: Sequence[Generation]) -> None:
    """Run all generations to the end: prompts one by one, then a token of each in every step."""
    for generation in generations:
        next(generation)
    if not all(generation._decodes for generation in generations):
        _step_together(generations)
        return
    most = generations[0]._model.most_decoded
    for start in range(0, len(generations), most):
        _decode_together(generations[start : start + most])


def _step_together(generations: Sequence[Generation]) -> None:
    model = generations[0]._model
    states = State.stack([generation._state for generation in generations])
    while (running := _running(generations)).size:
        batch = _pending([generations[i] for i in running], running)
        logits = model.run(batch, states.states)
        for i, row in zip(running, logits, strict=True):
            generations[i]._state.advance([1])
            generations[i]._choose(row)
    for i, generation in enumerate(generations):
        generation._state.states.put(slice(None), states.states.take([i]))


def _decode_together(generations: Sequence[Generation]) -> None:
    """On the device. It goes on with those that have ended until they are half of a batch."""
    states = State.stack([generation._state for generation in generations]).states
    while (running := _running(generations)).size:
        batch = [generations[i] for i in running]
        with closing(decoding(batch, running, states)) as steps:
            while 2 * _running(batch).size > len(batch):
                _accept_each(batch, steps)


def _accept_each(batch: Sequence[Generation], steps: Decoding) -> None:
    """Add the tokens of a step to the generations that have not ended."""
    drawn = next(steps)
    for i in _running(batch):
        batch[i]._accept(drawn, i)
        if batch[i].finish_reason is not None:
            batch[i]._state.states.put(slice(None), steps.take([i]))


def _running(generations: Sequence[Generation]) -> Slots:
    """Which of them have not ended."""
    return np.array([i for i, one in enumerate(generations) if one.finish_reason is None], np.int32)
