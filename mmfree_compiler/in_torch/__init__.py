"""Compiled models as modules of torch: their kernels run on torch's tensors, in its streams.

A model is one custom op (op.py), so torch.compile and CUDA graphs take it as they take torch's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.dlpack import DLDeviceType

from mmfree_compiler import backends
from mmfree_compiler.artifact import Artifact, Port
from mmfree_compiler.backends.device_interface import Embeddable
from mmfree_compiler.backends.interface import Backend
from mmfree_compiler.errors import InputError, TargetError
from mmfree_compiler.in_torch.inputs import checked_batch, checked_input, checked_state
from mmfree_compiler.in_torch.op import Runnable, run_compiled


def embeddable(kinds: Sequence[str]) -> Embeddable:
    """The first backend of these kinds whose kernels run in torch. Raises TargetError."""
    for kind in kinds:
        backend: Backend = backends.get(kind)
        if isinstance(backend, Embeddable):
            return backend
    hint = "Compile for a GPU, or leave in_torch out"
    raise TargetError(f"target {' or '.join(kinds)}", "does not run in torch's memory", hint)


def check_in_torch(kinds: Sequence[str], fallback: str) -> None:
    """Raise, before anything is compiled for nothing, TargetError or InputError."""
    embeddable(kinds).here()
    if fallback == "eager":
        hint = 'Leave fallback="eager" out: its result runs in torch by itself'
        raise InputError("in_torch", "cannot be combined with a fallback", hint)


class CompiledModule(nn.Module):
    """A compiled model on torch's current device; `artifact` is what was compiled.

    `weights` (bytes,) uint8 are its packed weights, which it reads where they are. They are not in
    the state_dict: they belong to the artifact. So does a pickled module, or a copy: it is opened
    anew. There are no gradients. A CUDA graph needs the module for as long as it is replayed.
    Raises TargetError and ArtifactError.
    """

    weights: Tensor

    def __init__(self, artifact: Artifact) -> None:
        super().__init__()
        manifest = artifact.manifest
        backend = embeddable([view.entry.kind for view in artifact.targets])
        (own,) = (view for view in artifact.targets if view.entry.kind == backend.kind)
        self.artifact = artifact
        kernels = backend.kernels().open(own, _current_device())
        self._inputs, self._state_width = manifest.inputs, kernels.state_width
        kind, index = kernels.device
        device = torch.device(DLDeviceType(kind).name.removeprefix("kDL").lower(), index)
        weights = torch.empty(len(own.weights), dtype=torch.uint8, device=device)
        self.register_buffer("weights", weights, persistent=False)
        kernels.write(weights.data_ptr(), own.weights)
        ports = manifest.inputs, manifest.outputs
        self.runnable = Runnable(kernels, *ports, weights.device, len(weights))

    def __reduce__(self) -> tuple[Any, ...]:
        return compiled_module, (self.artifact,)

    def __deepcopy__(self, _: dict[int, Any]) -> CompiledModule:
        return compiled_module(self.artifact)

    def extra_repr(self) -> str:
        return self.artifact.title

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:  # noqa: ARG002
        """What moves or converts modules: nothing here can be. Raises InputError."""
        packed = self.weights[:0]
        # Conversions to half or double leave bytes alone, and what computes is float32.
        for probe in (packed, packed.to(torch.float32)):
            made = fn(probe)
            if (made.device, made.dtype) != (probe.device, probe.dtype):
                cause = f"stays on {probe.device}, in the numbers that it was compiled for"
                hint = "Convert its results, or compile it again on the other device"
                raise InputError("a compiled module", cause, hint)
        return self

    def zeros(self, batch: int) -> Tensor:
        """The state of `batch` sequences that have seen no tokens: (batch, numbers) float32.

        Raises InputError when `batch` is not a whole number from 1 to 2^31 - 1.
        """
        shape = (checked_batch(batch), self._state_width)
        return torch.zeros(shape, dtype=torch.float32, device=self.weights.device)

    def _run(self, inputs: Iterable[Tensor], state: Tensor) -> list[Tensor]:
        """Outputs (B, T, width), then the state."""
        return list(run_compiled(self.weights, list(inputs), state, self.runnable.key))

    def _checked(self, x: Tensor, name: str, port: Port) -> Tensor:
        return checked_input(x, name, port, self.weights.device)


class CompiledLanguageModel(CompiledModule):
    """A language model: tokens and a state in, logits and a state out."""

    def forward(self, tokens: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits (B, T, V) float32 and the state after `tokens` (B, T) int64.

        `state` is one of B sequences; None: of no tokens. It is not changed. Ids outside the
        vocabulary, which cannot be checked without waiting for them, give NaN. Raises InputError,
        StateError.
        """
        ids = self._checked(tokens, "tokens", self._inputs[0])
        if ids.dim() != 2:
            raise InputError("tokens", f"has shape {tuple(ids.shape)}", "Pass ids (B, T)")
        logits, after = self._run([ids], self._state(state, len(ids)))
        return logits, after

    def _state(self, state: Tensor | None, batch: int) -> Tensor:
        if state is None:
            return self.zeros(batch)
        return checked_state(state, (batch, self._state_width), self.weights.device)


class CompiledRows(CompiledModule):
    """Any other module: called like the module that was compiled."""

    def forward(self, *tensors: Tensor) -> Any:
        """What the module returns, in the same containers, for inputs (..., width).

        The last leading dimension is time; states are zero at the start of each call. Raises
        InputError.
        """
        if len(tensors) != len(self._inputs):
            names = ", ".join(port.name for port in self._inputs)
            raise InputError("inputs", f"{len(tensors)} given", f"The module takes {names}")
        pairs = zip(tensors, self._inputs, strict=True)
        inputs = [self._checked(x, port.name, port) for x, port in pairs]
        leading = inputs[0].shape[:-1]
        if any(x.shape[:-1] != leading for x in inputs):
            raise InputError("inputs", "have different leading dimensions", "Make them equal")
        time = leading[-1] if leading else 1
        rows = [x.reshape(-1, time, x.shape[-1]) for x in inputs]
        made = self._run(rows, self.zeros(len(rows[0])))[:-1]
        shaped = [x.reshape(*leading, x.shape[-1]) for x in made]
        return self.artifact.manifest.returned.build(shaped)


def _current_device() -> int:
    return torch.accelerator.current_device_index() if torch.accelerator.is_available() else 0


_KINDS: dict[str, type[CompiledModule]] = {"lm": CompiledLanguageModel, "module": CompiledRows}


def compiled_module(artifact: Artifact) -> CompiledModule:
    """The module of an artifact, such as that of a Session.

    Raises InputError on anything else, TargetError, ArtifactError.
    """
    if not isinstance(artifact, Artifact):
        cause = f"is of type {type(artifact).__name__}"
        raise InputError("artifact", cause, "Pass that of a session, session.artifact")
    return _KINDS[artifact.manifest.kind](artifact)
