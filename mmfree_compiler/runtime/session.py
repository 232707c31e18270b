"""The session: what a user holds of a loaded artifact."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from os import PathLike
from typing import Any, Unpack, overload

from mmfree_compiler.artifact import Artifact, read_artifact
from mmfree_compiler.errors import InputError
from mmfree_compiler.runtime.generation import Generation
from mmfree_compiler.runtime.language_model import Ids, LanguageModel
from mmfree_compiler.runtime.launcher import Launcher, Runner, make_launcher
from mmfree_compiler.runtime.row_module import RowModule
from mmfree_compiler.runtime.state import State
from mmfree_compiler.runtime.text_generation import Sampling, TextGenerator
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
        """The language model behind this session. Raises InputError when the artifact is none."""
        if not isinstance(self._call, LanguageModel):
            raise InputError("artifact", "no language model", "Call the session with tensors")
        return self._call

    @cached_property
    def _text(self) -> TextGenerator:
        return TextGenerator(self.language_model, self.artifact)

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer of a language model's artifact, None when it has none.

        Raises ToolchainError, ArtifactError; InputError when the artifact is another module.
        """
        return self._text.tokenizer

    def encode(self, prompt: Any, *, special: bool = True) -> Ids:
        """Ids (T,) int64 of a text or of ids, checked against the vocabulary.

        `special` adds what the tokenizer puts around a text, such as a BOS. Raises InputError on an
        empty prompt, on ids out of range, and on text when the artifact has no tokenizer.
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
        *,
        seed: int | None = None,
        state: State | None = None,
        **options: Unpack[Sampling],
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
        return self._text.generate(prompt, seed=seed, state=state, **options)

    def generate_batch(
        self,
        prompts: Sequence[Any],
        *,
        seed: int | Sequence[int] | None = None,
        state: State | None = None,
        **options: Unpack[Sampling],
    ) -> list[Generation]:
        """Finished generations of several prompts, each as `generate` alone would make it.

        `seed` may be one a prompt; a single one gives prompt i the seed `seed + i`. The other
        arguments are `generate`'s. Prompts run one by one, then all decode side by side.
        """
        return self._text.generate_batch(prompts, seed=seed, state=state, **options)
