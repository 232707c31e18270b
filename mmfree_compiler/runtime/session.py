"""The session: a loaded artifact, ready to run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from inspect import signature
from numbers import Integral
from os import PathLike
from typing import Any, Self, Unpack, overload

from mmfree_compiler.artifact import Artifact, Key
from mmfree_compiler.backends import files
from mmfree_compiler.backends.interface import Launcher
from mmfree_compiler.errors import InputError
from mmfree_compiler.runtime.generation import Generation
from mmfree_compiler.runtime.language_model import Ids, LanguageModel
from mmfree_compiler.runtime.launcher import CLOSED, Opened, open_launcher
from mmfree_compiler.runtime.prompts import MAX_PROMPT_BYTES, Reading
from mmfree_compiler.runtime.row_module import RowModule
from mmfree_compiler.runtime.sampling import Sampling, SamplingOptions
from mmfree_compiler.runtime.state import State
from mmfree_compiler.runtime.text_generation import TextGenerator
from mmfree_compiler.runtime.tokenizer import Tokenizer
from mmfree_compiler.wording import given, printable

_CALLS: dict[str, type[LanguageModel] | type[RowModule]] = {
    "lm": LanguageModel,
    "module": RowModule,
}


def load(
    path: str | PathLike[str],
    threads: int | None = None,
    *,
    target: str | None = None,
    verify: bool = False,
    require_signature: Key | None = None,
    **options: Any,
) -> Session:
    """Load a model.mmfree or a model.onnx.

    `threads`, `target` and `options` are those of Session. An artifact may hold native
    code: loading one is like running a program. Weights are read on use; `verify=True` reads them
    all first and checks their SHA-256. `require_signature`, an Ed25519 public key as a PEM file or
    its bytes, refuses any file but one that `mmfree sign` signed with the private key, unchanged.
    Raises ArtifactError, TargetError, InputError, ToolchainError.
    """
    artifact = files.read(path, verify, require_signature)
    return Session(artifact, threads, target=target, **options)


class Session:
    """Runs one artifact.

    An artifact of several targets runs on the first that this machine has, or on the `target` that
    is named, by its kind or in full; `artifact` is then as that target sees it, and `refused` has
    those in front of it and why they do not run here. `threads` and `options` are for the target
    that runs: those that only other targets of the artifact take are ignored. The CPU target takes
    `threads`, by default one per CPU that the process may use. Several threads may use a session at
    once. Sessions of one artifact share its weights, but not their scratch memory. A pickled
    session holds its artifact, and opens anew.
    """

    def __init__(
        self,
        artifact: Artifact,
        threads: int | None = None,
        *,
        target: str | None = None,
        launcher: Launcher | None = None,
        **options: Any,
    ) -> None:
        """`launcher` is an open launcher to use. Raises the errors of interface.Launcher.open."""
        if not isinstance(artifact, Artifact):
            cause = f"is of type {type(artifact).__name__}"
            raise InputError("artifact", cause, "load(path) reads files")
        self._options = {"threads": threads, "target": target, **options}
        given = Opened(launcher, artifact, {}) if launcher else None
        opened = given or open_launcher(artifact, **self._options)
        self.launcher, self.artifact = opened.launcher, opened.artifact
        self.refused = opened.refused
        make = _CALLS[artifact.manifest.kind]
        self._call: LanguageModel | RowModule = make(artifact.manifest, self.launcher)

    def __repr__(self) -> str:
        state = "closed"
        if self.launcher is not CLOSED:
            state = f"runs {self.launcher.build} on {self.artifact.entry.kind}"
        return f"Session({self.artifact.title}, {printable(state)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, (self.artifact, self._options)

    def close(self) -> None:
        """Release what the session holds on its target; later calls raise InputError."""
        self.launcher.close()
        self.launcher = self._call.launcher = CLOSED

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @overload
    def __call__(
        self, tokens: Any, state: State | None = None, *, mask: Any = None
    ) -> tuple[Any, State]: ...

    @overload
    def __call__(self, *tensors: Any) -> Any: ...

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Run the model.

        A language model takes `tokens` (B, T) int64, a state of B sequences (None: no tokens seen
        yet) and a mask (B, T) of 1 for tokens and 0 for padding on the left. It returns logits
        (B, T, V) float32 and the state after the tokens; the given state is not changed. Padding
        is not run: each row gives the same result as alone, and its logits at padding are zero.

        Any other module takes its inputs, (..., width) float32 with equal leading dimensions, and
        returns what the module returns, in the same containers. The last leading dimension is time,
        the others are sequences; states start at zero in every call.

        NumPy arrays (or lists) give NumPy arrays, torch tensors give torch tensors, sharing memory.
        On a GPU, a session also takes arrays of torch and CuPy that are there, and gives such ones.
        Raises InputError, StateError.
        """
        try:
            return self._call(*inputs, **options)
        except TypeError:
            self._check_arguments(*inputs, **options)
            raise

    def _check_arguments(self, *inputs: Any, **options: Any) -> None:
        """Raise InputError on arguments that a call does not take."""
        try:
            signature(self._call).bind(*inputs, **options)
        except TypeError as error:
            raise InputError("arguments of the call", str(error), self._call.usage) from None

    def advance(self, tokens: Any, state: State, *, mask: Any = None) -> Any:
        """Run a language model on `tokens`, and advance `state` in place instead of copying it.

        Arguments and logits are as in a call. Raises InputError, StateError.
        """
        return self.language_model.advance(tokens, state, mask=mask)

    def zero_state(self, batch: int = 1) -> State:
        """The state of `batch` sequences that have seen no tokens, for `advance`.

        Raises InputError when `batch` is not a positive whole number.
        """
        if not isinstance(batch, Integral) or isinstance(batch, bool) or batch < 1:
            cause = f"{given(batch)} is not a whole number from 1"
            raise InputError("batch", cause, "Choose the number of sequences")
        return self.language_model.fork(None, batch)

    @property
    def language_model(self) -> LanguageModel:
        """The language model of this session. Raises InputError if it runs another module."""
        if not isinstance(self._call, LanguageModel):
            taken = self.artifact.manifest.signature
            hint = "Call the session with these arrays"
            raise InputError("model", f"is not a language model: it takes {taken}", hint)
        return self._call

    @cached_property
    def _text(self) -> TextGenerator:
        return TextGenerator(self.language_model, self.artifact)

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer of the artifact, or None.

        Raises ToolchainError, ArtifactError, and InputError when it is not a language model.
        """
        return self._text.tokenizer

    def encode(
        self,
        prompt: Any,
        *,
        special: bool = True,
        allow_special_tokens: bool = False,
        max_prompt_bytes: int = MAX_PROMPT_BYTES,
    ) -> Ids:
        """Ids (T,) int64 of a text or of ids, checked against the vocabulary.

        `special` adds the tokenizer's special tokens, such as a BOS. Special tokens that are
        written in a text are plain text unless `allow_special_tokens`. Raises InputError on an
        empty prompt, on ids out of range, on text of more than `max_prompt_bytes` in UTF-8, and on
        text when the artifact has no tokenizer.
        """
        return self._text.encode(prompt, special, Reading(allow_special_tokens, max_prompt_bytes))

    def prefill(
        self,
        prompt: Any,
        state: State | None = None,
        *,
        allow_special_tokens: bool = False,
        max_prompt_bytes: int = MAX_PROMPT_BYTES,
    ) -> State:
        """The state after a prompt (text or ids), for `generate(..., state=...)` to start from.

        A prompt that follows a state is encoded without adding special tokens; the other arguments
        are those of `encode`. Raises InputError.
        """
        return self._text.prefill(prompt, state, Reading(allow_special_tokens, max_prompt_bytes))

    def generate(
        self,
        prompt: Any,
        sampling: Sampling | None = None,
        *,
        seed: int | None = None,
        state: State | None = None,
        allow_special_tokens: bool = False,
        max_prompt_bytes: int = MAX_PROMPT_BYTES,
        **options: Unpack[SamplingOptions],
    ) -> Generation:
        """Tokens that follow `prompt` (text or ids), as an iterator that runs when it is read.

        `options` are fields of Sampling (`temperature=0.8`); they replace those of `sampling`.
        Equal seeds, from 0 to 2^64 - 1, give equal tokens at equal positions of the sequence; None
        is a random seed. `state`, of one sequence, is the state before the prompt; it is not
        changed. The repetition penalty counts tokens of the prompt and generated ones, not those
        that `state` has seen. `allow_special_tokens` and `max_prompt_bytes` are those of `encode`.
        All arguments are checked here, before the first token: InputError, StateError.

        Tokens have text when the artifact has a tokenizer and the tokenizers package is installed.
        """
        reading = Reading(allow_special_tokens, max_prompt_bytes)
        return self._text.generate(prompt, _merged(sampling, options), seed, state, reading)

    def generate_batch(
        self,
        prompts: Sequence[Any],
        sampling: Sampling | None = None,
        *,
        seed: int | Sequence[int] | None = None,
        state: State | None = None,
        allow_special_tokens: bool = False,
        max_prompt_bytes: int = MAX_PROMPT_BYTES,
        **options: Unpack[SamplingOptions],
    ) -> list[Generation]:
        """Finished generations of several prompts, each the same as from `generate` alone.

        `seed` may list one seed per prompt; a single one gives prompt i the seed `seed + i`. The
        other arguments are `generate`'s. Prompts run one by one, then all decode side by side.
        """
        reading = Reading(allow_special_tokens, max_prompt_bytes)
        return self._text.generate_batch(prompts, _merged(sampling, options), seed, state, reading)


def _opened(artifact: Artifact, options: dict[str, Any]) -> Session:
    return Session(artifact, **options)


def _merged(sampling: Sampling | None, options: SamplingOptions) -> Sampling:
    """`sampling`, or the default one, with the fields in `options` replaced."""
    if not isinstance(sampling, Sampling | None):
        hint = "Pass a Sampling, or its fields by name, such as max_new_tokens=3"
        raise InputError("sampling", f"is of type {type(sampling).__name__}", hint)
    for name in options.keys() - SamplingOptions.__annotations__.keys():
        known = ", ".join(SamplingOptions.__annotations__)
        raise InputError(f"setting {name!r}", "is not a setting", f"Known: {known}")
    return replace(sampling, **options) if sampling else Sampling(**options)
