"""Text in, text out: prompts, prefixes and generations of a language model and its tokenizer."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from functools import cached_property
from numbers import Integral
from typing import Any

import numpy as np

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.errors import InputError
from mmfree_compiler.runtime.arrays import to_numpy
from mmfree_compiler.runtime.generation import Generation, run_together
from mmfree_compiler.runtime.language_model import Ids, LanguageModel
from mmfree_compiler.runtime.sampling import Sampling
from mmfree_compiler.runtime.state import State
from mmfree_compiler.runtime.tokenizer import TextStream, Tokenizer
from mmfree_compiler.wording import counted


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
        self, prompt: Any, sampling: Sampling, seed: int | None, state: State | None
    ) -> Generation:
        stop_tokens = self._stop_tokens(sampling)
        ids = self.encode(prompt, special=state is None)
        stream = self._stream(ids, needed=bool(sampling.stop_strings))
        before, random = self._model.fork(state, 1), _random(seed)
        return Generation(self._model, ids, before, sampling, stop_tokens, random, stream)

    def generate_batch(
        self,
        prompts: Sequence[Any],
        sampling: Sampling,
        seed: int | Sequence[int] | None,
        state: State | None,
    ) -> list[Generation]:
        if isinstance(prompts, str) or not isinstance(prompts, Sized) or len(prompts) == 0:
            raise InputError("prompts", "no list of prompts", "Pass at least one in a list")
        pairs = zip(prompts, _seeds(seed, len(prompts)), strict=True)
        generations = [self.generate(prompt, sampling, one, state) for prompt, one in pairs]
        run_together(generations)
        return generations

    def _stop_tokens(self, sampling: Sampling) -> frozenset[int]:
        """The ids that end a generation, checked against the vocabulary."""
        if sampling.stop_tokens is None:
            return self._end_of_text()
        listed = np.atleast_1d(to_numpy(sampling.stop_tokens, "stop_tokens"))
        return frozenset(self._model.ids(listed, "stop_tokens", 1).tolist() if listed.size else [])

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
