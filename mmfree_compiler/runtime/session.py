"""The session: what a user holds of a loaded artifact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from os import PathLike
from typing import Any, Unpack, overload

from mmfree_compiler.artifact import Artifact, read_artifact
from mmfree_compiler.errors import InputError
from mmfree_compiler.runtime.generation import Generation
from mmfree_compiler.runtime.language_model import Ids, LanguageModel
from mmfree_compiler.runtime.launcher import Launcher, Runner, make_launcher
from mmfree_compiler.runtime.row_module import RowModule
from mmfree_compiler.runtime.sampling import Sampling, SamplingOptions
from mmfree_compiler.runtime.state import State
from mmfree_compiler.runtime.text_generation import TextGenerator
from mmfree_compiler.runtime.threads import resolve_threads
from mmfree_compiler.runtime.tokenizer import Tokenizer

_CALLS: dict[str, type[LanguageModel] | type[RowModule]] = {
    "lm": LanguageModel,
    "module": RowModule,
}


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
        """The language model behind this session. Raises InputError when it is another module."""
        if not isinstance(self._call, LanguageModel):
            hint = "Call the session with tensors"
            raise InputError("artifact", "is not a language model", hint)
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

    def encode(self, prompt: Any, *, special: bool = True) -> Ids:
        """Ids (T,) int64 of a text or of ids, checked against the vocabulary.

        `special` adds the tokenizer's special tokens, such as a BOS. Raises InputError on an empty
        prompt, on ids out of range, and on text when the artifact has no tokenizer.
        """
        return self._text.encode(prompt, special)

    def prefill(self, prompt: Any, state: State | None = None) -> State:
        """The state after a prompt (text or ids), for `generate(..., state=...)` to start from.

        A prompt that follows a state is encoded without special tokens. Raises InputError.
        """
        return self._text.prefill(prompt, state)

    def generate(
        self,
        prompt: Any,
        sampling: Sampling | None = None,
        *,
        seed: int | None = None,
        state: State | None = None,
        **options: Unpack[SamplingOptions],
    ) -> Generation:
        """Tokens that follow `prompt` (text or ids), an iterator that runs as it is read.

        `options` are fields of Sampling (`temperature=0.8`); they replace those of `sampling`.
        Equal seeds give equal tokens; None is a random seed. `state` is what the model has seen
        before the prompt, one sequence; it stays as it is. The repetition penalty counts the prompt
        and what is generated, not what `state` has seen. All arguments are checked here, before the
        first token: InputError, StateError; TypeError on an option that Sampling does not have.

        Tokens have text when the artifact has a tokenizer and the tokenizers package is installed.
        """
        return self._text.generate(prompt, _merged(sampling, options), seed, state)

    def generate_batch(
        self,
        prompts: Sequence[Any],
        sampling: Sampling | None = None,
        *,
        seed: int | Sequence[int] | None = None,
        state: State | None = None,
        **options: Unpack[SamplingOptions],
    ) -> list[Generation]:
        """Finished generations of several prompts, each as `generate` alone would make it.

        `seed` may list one seed per prompt; a single one gives prompt i the seed `seed + i`. The
        other arguments are `generate`'s. Prompts run one by one, then all decode side by side.
        """
        return self._text.generate_batch(prompts, _merged(sampling, options), seed, state)


def _merged(sampling: Sampling | None, options: SamplingOptions) -> Sampling:
    """`sampling`, or the default one, with the fields in `options` replaced."""
    return replace(sampling or Sampling(), **options)
