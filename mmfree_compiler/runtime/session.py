"""The session: what a user holds of a loaded artifact."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from functools import cached_property
from numbers import Integral
from os import PathLike
from typing import Any, TypedDict, Unpack, overload

import numpy as np

from mmfree_compiler.artifact import Artifact, read_artifact
from mmfree_compiler.errors import InputError
from mmfree_compiler.runtime.arrays import to_numpy
from mmfree_compiler.runtime.generation import Generation, Limits, run_together
from mmfree_compiler.runtime.language_model import Ids, LanguageModel
from mmfree_compiler.runtime.launcher import Launcher, Runner, make_launcher
from mmfree_compiler.runtime.row_module import RowModule
from mmfree_compiler.runtime.sampling import Sampler
from mmfree_compiler.runtime.state import State
from mmfree_compiler.runtime.threads import resolve_threads
from mmfree_compiler.runtime.tokenizer import TextStream, Tokenizer
from mmfree_compiler.wording import counted

_CALLS: dict[str, type[LanguageModel] | type[RowModule]] = {
    "lm": LanguageModel,
    "module": RowModule,
}


class Sampling(TypedDict, total=False):
    """Keyword arguments that `generate` and `generate_batch` share; see `Session.generate`."""

    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    repetition_penalty: float
    stop: str | Sequence[str]
    stop_tokens: int | Sequence[int] | None
    state: State | None


def load(path: str | PathLike[str], threads: int | None = None, *, verify: bool = False) -> Session:
    """Load a model.mmfree. Raises ArtifactError, TargetError, InputError.

    A cpu artifact holds native code: loading it is running a program. Weights are read as they are
    used; `verify=True` reads them all first and compares their SHA-256.
    """
    return Session(read_artifact(path, verify), threads)


class Session:
    """Runs one artifact with `threads` threads, by default as many as the process has CPUs.

    Several threads may use a session at once. Sessions over one artifact share its weights; each
    has scratch memory of its own. `launcher` replaces the one of the artifact's target.
    """

    def __init__(
        self, artifact: Artifact, threads: int | None = None, *, launcher: Launcher | None = None
    ) -> None:
        self.artifact = artifact
        self.threads = resolve_threads(threads)
        runner = Runner(artifact.manifest, launcher or make_launcher(artifact, self.threads))
        self._call: LanguageModel | RowModule = _CALLS[artifact.manifest.kind](runner)

    @overload
    def __call__(
        self, tokens: Any, state: State | None = None, *, mask: Any = None
    ) -> tuple[Any, State]: ...

    @overload
    def __call__(self, *tensors: Any) -> Any: ...

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Run the model.

        A language model takes `tokens` (B, T) int64, a state of B sequences (None: none seen yet)
        and a mask (B, T) of 1 for tokens and 0 for padding on the left; it returns logits
        (B, T, V) float32 and the state after the tokens; the given state stays as it is. Padding is
        not run: every row is exact as if alone, its logits at padding are zero.

        Any other module takes its inputs, (..., width) float32 with equal leading dimensions, and
        returns its outputs, one or a tuple. The last leading dimension is time, each of the others
        a sequence; states begin at zero in every call.

        NumPy arrays (or lists) give NumPy arrays, torch tensors give torch tensors, sharing memory.
        Raises InputError, StateError.
        """
        return self._call(*inputs, **options)

    @property
    def language_model(self) -> LanguageModel:
        """The language model behind this session. Raises InputError when the artifact is none."""
        if not isinstance(self._call, LanguageModel):
            raise InputError("artifact", "no language model", "Call the session with tensors")
        return self._call

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """The artifact's tokenizer, None when it has none. Raises ToolchainError, ArtifactError."""
        text = self.artifact.members.get("tokenizer.json")
        return None if text is None else Tokenizer(text.tobytes())

    def encode(self, prompt: Any, *, special: bool = True) -> Ids:
        """Ids (T,) int64 of a text or of ids, checked against the vocabulary.

        `special` adds what the tokenizer puts around a text, such as a BOS. Raises InputError on an
        empty prompt, on ids out of range, and on text when the artifact has no tokenizer.
        """
        if not isinstance(prompt, str):
            return self.language_model.ids(prompt, "prompt", 1)
        if not prompt:
            raise InputError("prompt", "empty", "Pass at least one character")
        if self.tokenizer is None:
            raise InputError("prompt", "text, but the artifact has no tokenizer", "Pass token ids")
        return self.language_model.ids(self.tokenizer.encode(prompt, special), "prompt", 1)

    def prefill(self, prompt: Any, state: State | None = None) -> State:
        """The state after a prompt (text or ids), for `generate(..., state=...)` to start from.

        A prompt that follows a state is encoded without special tokens. Raises InputError.
        """
        ids = self.encode(prompt, special=state is None)
        after = self.language_model.fork(state, 1)
        slots = np.zeros(ids.size, np.int32)
        self.language_model.advance(ids, slots, after.array, first=ids.size)
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
        """Tokens that follow `prompt` (text or ids), an iterator that runs as it is read.

        `temperature`, `top_k`, `top_p`, `repetition_penalty`: see sampling.Sampler; temperature 0
        is greedy. Equal seeds give equal tokens; None draws a new one. It ends after
        `max_new_tokens`, at a token of `stop_tokens` (None: the model's end of text), or before a
        text of `stop`. `state` is what the model has seen before the prompt, one sequence; it stays
        as it is. The penalty counts the prompt and what is generated, not what `state` has seen.
        All arguments are checked here, before the first token: InputError, StateError.

        Tokens carry text when the artifact has a tokenizer and the tokenizers package is there.
        """
        model = self.language_model
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
        **options: Unpack[Sampling],
    ) -> list[Generation]:
        """Finished generations of several prompts, each as `generate` alone would make it.

        `seed` may be one a prompt; a single one gives prompt i the seed `seed + i`. The other
        arguments are `generate`'s. Prompts run one by one, then all decode side by side.
        """
        if isinstance(prompts, str) or not isinstance(prompts, Sized) or len(prompts) == 0:
            raise InputError("prompts", "no list of prompts", "Pass at least one in a list")
        pairs = zip(prompts, _seeds(seed, len(prompts)), strict=True)
        generations = [self.generate(prompt, seed=one, **options) for prompt, one in pairs]
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
        ids = self.language_model.ids(listed, "stop_tokens", 1).tolist() if listed.size else []
        return Limits(max_new_tokens, stops, frozenset(ids))

    def _end_of_text(self) -> frozenset[int]:
        """The configuration's eos_token_id: an integer, a list of them, or nothing."""
        found = self.artifact.manifest.model.get("eos_token_id")
        listed = found if isinstance(found, list) else [found]
        return frozenset(token for token in listed if isinstance(token, int))

    def _stream(self, ids: Ids, needed: bool) -> TextStream | None:
        """Text of generated tokens; None where there can be none and no stop string needs it."""
        if not needed and not ("tokenizer.json" in self.artifact.members and Tokenizer.available()):
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
