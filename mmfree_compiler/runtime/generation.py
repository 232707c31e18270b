"""Generating the tokens that follow a prompt, for one prompt or for several side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

import numpy as np

from mmfree_compiler.errors import InputError, StateError
from mmfree_compiler.runtime.language_model import Floats, Ids, LanguageModel
from mmfree_compiler.runtime.next_token import sample
from mmfree_compiler.runtime.sampling import Sampling
from mmfree_compiler.runtime.state import State
from mmfree_compiler.runtime.stopping import StopFilter
from mmfree_compiler.runtime.text_stream import TextStream

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
        state = self._state.fork()
        self._model.continue_one(self._pending, state, wanted=0)
        return state

    def __next__(self) -> Token:
        if self.finish_reason is not None:
            raise StopIteration
        self._check_uninterrupted()
        self._mid_token = True
        logits = self._model.continue_one(self._pending, self._state, wanted=1)
        token = self._accept(logits[0])
        self._mid_token = False
        return token

    def _check_uninterrupted(self) -> None:
        if self._mid_token:
            hint = "Generate again from its prompt and the ids so far"
            raise StateError("generation", "was interrupted in the middle of a token", hint)

    def _accept(self, logits: Floats) -> Token:
        """Choose the next token from `logits` (V,), which follow the pending ids."""
        (position,) = self._state.length
        chosen, logprob = sample(logits, self._seen, self._sampling, self._seed, position)
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


def run_together(generations: Sequence[Generation]) -> None:
    """Run all generations to the end: prompts one by one, then a token of each in every step."""
    for generation in generations:
        next(generation)
    model = generations[0]._model
    states = State.stack([generation._state for generation in generations])
    while running := [i for i, one in enumerate(generations) if one.finish_reason is None]:
        ids = np.concatenate([generations[i]._pending for i in running])
        positions = np.array([generations[i]._state.length[0] for i in running])
        slots = np.array(running, np.int32)
        logits = model.run(ids, slots, positions, np.arange(len(running)), states.states)
        for i, row in zip(running, logits, strict=True):
            generations[i]._state.advance([1])
            generations[i]._accept(row)
    for i, generation in enumerate(generations):
        generation._state.states.put(slice(None), states.states.take([i]))
