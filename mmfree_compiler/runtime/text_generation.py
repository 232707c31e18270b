"""Generating text: the prompts and generations of a language model with a tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from functools import cached_property
from typing import Any

import numpy as np

from mmfree_compiler.artifact import TOKENIZER, Artifact
from mmfree_compiler.errors import InputError
from mmfree_compiler.runtime.arrays import to_numpy
from mmfree_compiler.runtime.generation import Generation, run_together
from mmfree_compiler.runtime.language_model import Ids, LanguageModel
from mmfree_compiler.runtime.prompts import Reading
from mmfree_compiler.runtime.sampling import Sampling
from mmfree_compiler.runtime.seeds import checked_seed, seeds
from mmfree_compiler.runtime.state import State
from mmfree_compiler.runtime.text_stream import TextStream
from mmfree_compiler.runtime.tokenizer import Tokenizer

_NO_TOKENIZER = "but the artifact has no tokenizer"


class TextGenerator:
    """A language model and the tokenizer of its artifact. Session documents the public methods."""

    def __init__(self, model: LanguageModel, artifact: Artifact) -> None:
        self._model, self._artifact = model, artifact

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        text = self._artifact.members.get(TOKENIZER)
        return None if text is None else Tokenizer(text.tobytes())

    def encode(self, prompt: Any, special: bool, reading: Reading) -> Ids:
        if not issubclass(type(prompt), str):  # isinstance asks the object too, which may raise
            return self._model.ids(prompt, "prompt", 1)
        if not prompt:
            raise InputError("prompt", "is empty", "Pass at least one character")
        if self.tokenizer is None:
            raise InputError(
                "prompt",
                f"is text, {_NO_TOKENIZER}",
                "Pass token ids, or compile a checkpoint that has a tokenizer.json",
            )
        ids = self.tokenizer.encode(prompt, special, reading)
        if ids.size == 0:
            cause = "has no tokens: the tokenizer leaves all of its characters out"
            raise InputError("prompt", cause, "Pass other text")
        return self._model.ids(ids, "prompt", 1)

    def prefill(self, prompt: Any, state: State | None, reading: Reading) -> State:
        ids = self.encode(prompt, state is None, reading)
        after = self._model.fork(state, 1)
        self._model.continue_one(ids, after, wanted=0)
        return after

    def generate(
        self,
        prompt: Any,
        sampling: Sampling,
        seed: int | None,
        state: State | None,
        reading: Reading,
    ) -> Generation:
        stop_tokens = self._stop_tokens(sampling)
        ids = self.encode(prompt, state is None, reading)
        stream = self._stream(ids)
        before, key = self._model.fork(state, 1), checked_seed(seed)
        if state is not None:
            state.check_numbers()
        return Generation(self._model, ids, before, sampling, stop_tokens, key, stream)

    def generate_batch(
        self,
        prompts: Sequence[Any],
        sampling: Sampling,
        seed: int | Sequence[int] | None,
        state: State | None,
        reading: Reading,
    ) -> list[Generation]:
        if isinstance(prompts, str) or not isinstance(prompts, Sized) or len(prompts) == 0:
            raise InputError("prompts", "are not a non-empty list", "Pass a list of prompts")
        pairs = zip(prompts, seeds(seed, len(prompts)), strict=True)
        generations = [self.generate(each, sampling, one, state, reading) for each, one in pairs]
        run_together(generations)
        return generations

    def _stop_tokens(self, sampling: Sampling) -> frozenset[int]:
        """The ids that end a generation, checked against the vocabulary."""
        special = frozenset(self._special_stops(sampling.stop_strings))
        if sampling.stop_tokens is None:
            return self._end_of_text() | special
        ids = np.atleast_1d(to_numpy(sampling.stop_tokens, "stop_tokens"))
        if ids.size == 0:
            return special
        return special | frozenset(self._model.ids(ids, "stop_tokens", 1).tolist())

    def _special_stops(self, stops: Sequence[str]) -> Iterator[int]:
        """The ids of stop strings that are special tokens, which the text leaves out."""
        if not stops:
            return
        if self.tokenizer is None:
            raise InputError("stop", f"is text, {_NO_TOKENIZER}", "Pass ids as `stop_tokens`")
        special = self.tokenizer.special
        for stop in stops:
            written = [token for token in special if token and token in stop]
            if stop in special:
                yield special[stop]
            elif written:
                cause = f"{stop!r} cannot appear: the text leaves the token {written[0]!r} out"
                raise InputError("stop", cause, f"Stop at {written[0]!r} alone")

    def _end_of_text(self) -> frozenset[int]:
        """The model configuration's eos_token_id: an integer, a list of them, or absent."""
        found = self._artifact.manifest.model.get("eos_token_id")
        listed = found if isinstance(found, list) else [found]
        return frozenset(token for token in listed if isinstance(token, int))

    def _stream(self, ids: Ids) -> TextStream | None:
        """The text of generated tokens; None without a tokenizer."""
        if TOKENIZER not in self._artifact.members or not Tokenizer.available():
            return None
        return None if self.tokenizer is None else TextStream(self.tokenizer, ids.tolist())
