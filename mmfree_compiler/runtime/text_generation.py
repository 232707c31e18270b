"""Text in, text out: prompts, prefixes and generations of a language model and its tokenizer."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from functools import cached_property
from numbers import Integral
from typing import Any, TypedDict, Unpack

import numpy as np

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.errors import InputError
from mmfree_compiler.runtime.arrays import to_numpy
from mmfree_compiler.runtime.generation import Generation, Limits, run_together
from mmfree_compiler.runtime.language_model import Ids, LanguageModel
from mmfree_compiler.runtime.sampling import Sampler
from mmfree_compiler.runtime.state import State
from mmfree_compiler.runtime.tokenizer import TextStream, Tokenizer
from mmfree_compiler.wording import counted


class Sampling(TypedDict, total=False):
    """Keyword arguments that `generate` and `generate_batch` share; see `Session.generate`."""

    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    repetition_penalty: float
    stop: str | Sequence[str]
    stop_tokens: int | Sequence[int] | None


class TextGenerator:
    """A language model with the tokenizer of its artifact. See Session for its methods."""

    def __init__(self, model: LanguageModel, artifact: Artifact) -> None:
        self._model, self._artifact = model, artifact

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        text = self._artifact.members.get("tokenizer.json")
        return None if text is None else Tokenizer(text.tobytes())

    def encode(self, prompt: Any, special: bool) -> Ids:
        if not isinstance(prompt, str):
            return self._model.ids(prompt, "prompt", 1)
        if not prompt:
            raise InputError("prompt", "empty", "Pass at least one character")
        if self.tokenizer is None:
            raise InputError("prompt", "text, but the artifact has no tokenizer", "Pass token ids")
        return self._model.ids(self.tokenizer.encode(prompt, special), "prompt", 1)

    def prefill(self, prompt: Any, state: State | None) -> State:
        ids = self.encode(prompt, special=state is None)
        after = self._model.fork(state, 1)
        slots = np.zeros(ids.size, np.int32)
        self._model.advance(ids, slots, after.array, first=ids.size)
        return after.advanced([ids.size])

    def generate(
        self,
        prompt: Any,
        *,
        max_new_tokens: int = 128,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        stop_tokens: int | Sequence[int] | None = None,
        state: State | None = None,
    ) -> Generation:
        model = self._model
        sampler = Sampler(temperature, top_k, top_p, repetition_penalty)
        limits = self._limits(max_new_tokens, stop, stop_tokens)
        ids = self.encode(prompt, special=state is None)
        stream = self._stream(ids, needed=bool(limits.stop))
        return Generation(model, ids, model.fork(state, 1), sampler, limits, _random(seed), stream)

    def generate_batch(
        self,
        prompts: Sequence[Any],
        *,
        seed: int | Sequence[int] | None = None,
        state: State | None = None,
        **options: Unpack[Sampling],
    ) -> list[Generation]:
        if isinstance(prompts, str) or not isinstance(prompts, Sized) or len(prompts) == 0:
            raise InputError("prompts", "no list of prompts", "Pass at least one in a list")
        pairs = zip(prompts, _seeds(seed, len(prompts)), strict=True)
        generations = [
            self.generate(prompt, seed=one, state=state, **options) for prompt, one in pairs
        ]
        run_together(generations)
        return generations

    def _limits(
        self,
        max_new_tokens: int,
        stop: str | Sequence[str],
        stop_tokens: int | Sequence[int] | None,
    ) -> Limits:
        if not isinstance(max_new_tokens, Integral) or max_new_tokens < 1:
            cause = f"{max_new_tokens!r} is no whole number from 1"
            raise InputError("max_new_tokens", cause, "Choose at least 1")
        listed_texts = isinstance(stop, Sequence) and not isinstance(stop, str)
        stops = tuple(stop) if listed_texts else (stop,)
        if not all(isinstance(text, str) and text for text in stops):
            raise InputError("stop", f"{stops!r} has what is no text, or is empty", "Pass strings")
        if stop_tokens is None:
            return Limits(max_new_tokens, stops, self._end_of_text())
        listed = np.atleast_1d(to_numpy(stop_tokens, "stop_tokens"))
        ids = self._model.ids(listed, "stop_tokens", 1).tolist() if listed.size else []
        return Limits(max_new_tokens, stops, frozenset(ids))

    def _end_of_text(self) -> frozenset[int]:
        """The configuration's eos_token_id: an integer, a list of them, or nothing."""
        found = self._artifact.manifest.model.get("eos_token_id")
        listed = found if isinstance(found, list) else [found]
        return frozenset(token for token in listed if isinstance(token, int))

    def _stream(self, ids: Ids, needed: bool) -> TextStream | None:
        """Text of generated tokens; None where there can be none and no stop string needs it."""
        in_artifact = "tokenizer.json" in self._artifact.members
        if not needed and not (in_artifact and Tokenizer.available()):
            return None
        if self.tokenizer is None:
            raise InputError("stop", "text, but the artifact has no tokenizer", "Use stop_tokens")
        return TextStream(self.tokenizer, ids.tolist())


def _random(seed: int | None) -> np.random.Generator:
    if seed is not None and not (isinstance(seed, Integral) and seed >= 0):
        raise InputError("seed", f"{seed!r} is no whole number from 0", "Leave it out for chance")
    return np.random.default_rng(seed)


def _seeds(seed: int | Sequence[int] | None, count: int) -> Sequence[int | None]:
    if seed is None:
        return [None] * count
    if isinstance(seed, int | np.integer):
        return range(int(seed), int(seed) + count)
    if not isinstance(seed, Sized):
        raise InputError("seed", f"{seed!r} is no whole number", "Pass one, or one a prompt")
    if len(seed) != count:
        cause = f"{len(seed)} for {counted(count, 'prompt')}"
        raise InputError("seed", cause, "Pass one, or one a prompt")
    return seed
