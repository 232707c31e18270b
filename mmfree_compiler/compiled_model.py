"""The result of `compile`: a model that runs, is saved, and says how it was made."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends import files
from mmfree_compiler.errors import InputError
from mmfree_compiler.explaining import Explanation, History, explain_artifact
from mmfree_compiler.program import Program
from mmfree_compiler.runtime import Generation, Sampling, Session


@dataclass(frozen=True, eq=False)
class CompiledModel:
    """A compiled model, ready to run in this process.

    A call goes to its `session` (see runtime.Session): `logits, state = compiled(tokens)`, or
    tensors in and tensors out for a module that is not a language model.
    """

    artifact: Artifact = field(repr=False)
    threads: int | None = None  # of its session
    history: History = field(default_factory=History, repr=False)

    def __repr__(self) -> str:
        return f"CompiledModel({self.artifact.title})"

    def __reduce__(self) -> tuple[Any, ...]:
        return CompiledModel, (self.artifact, self.threads, self.history)  # a session opens anew

    @property
    def program(self) -> Program:
        """The Program of the first target, after all passes.

        Raises InputError on a model that was unpickled.
        """
        if self.artifact.program is None:
            cause = "is not part of a pickled model"
            raise InputError("program", cause, "Look at it in the process that compiled it")
        return self.artifact.program

    @cached_property
    def session(self) -> Session:
        """Opened on first use, for the first target that runs here.

        The model may have been compiled for another machine.
        """
        return Session(self.artifact, self.threads)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.session(*args, **kwargs)

    def generate(self, prompt: Any, sampling: Sampling | None = None, **options: Any) -> Generation:
        """Stream tokens; see runtime.Session.generate."""
        return self.session.generate(prompt, sampling, **options)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to `path`, in the form that its suffix names: .mmfree, or .onnx.

        Raises ArtifactError, and TargetError if a target cannot be saved so.
        """
        files.write(self.artifact, path)

    def explain(self, measure: bool = False) -> Explanation:
        """What each pass did, and what came out of it; print() shows it as text.

        With `measure`, each target that runs here and can measure its stages does so, for which its
        kernels are compiled again.
        """
        return explain_artifact(self.artifact, self.history, self.threads, measure)
