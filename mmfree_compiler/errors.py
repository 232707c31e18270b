"""The tree of errors. Every message names the thing, the cause and the hint.

MmfreeError
├── CheckpointError     a checkpoint folder: its config, its tensors, its tokenizer; an ONNX model
├── TraceError          a module that torch.export cannot trace, even with adapters
├── UnsupportedError    operations that the target has no lowering for, all at once
├── TargetError         an unknown target, or one that this machine cannot run
│   └── DeviceError     a device of the target that cannot be used now
├── ToolchainError      a missing or failing compiler, linker or optional package
├── ArtifactError       a damaged or hostile model.mmfree, or one of another schema
├── CorpusError         training text that cannot be read or is too short
└── InputError          arguments of a call: tokens, masks, sampling settings, threads
    └── StateError      a state of another model or batch, or an interrupted generation
"""

from typing import ClassVar

from mmfree_compiler.wording import printable

_EAGER = 'pass fallback="eager" to run the module in torch'


class MmfreeError(Exception):
    """Base of every error that this package raises on purpose.

    `thing` is what is wrong (a path, a node, an argument), `cause` what is wrong with it, `hint`
    what the reader can do about it, which ends with what helps against every error of its class.
    Its text never has characters that act on a terminal.
    """

    always: ClassVar[str] = ""

    def __init__(self, thing: str, cause: str, hint: str = "") -> None:
        self.thing, self.cause = thing, cause
        self.hint = ", or ".join(filter(None, (hint, self.always)))
        follows = "\n" if "\n" in cause else ". "  # after a list, on a line of its own
        super().__init__(printable(follows.join(filter(None, (f"{thing}: {cause}", self.hint)))))

    @property
    def fault(self) -> str:
        """What is wrong, in one line and without the hint."""
        return printable(f"{self.thing}: {self.cause}".partition("\n")[0].removesuffix(":"))


class CheckpointError(MmfreeError):
    """A checkpoint folder, its config or its tensors are wrong."""


class TraceError(MmfreeError):
    """A module cannot be traced into a graph."""

    always = _EAGER


class UnsupportedError(MmfreeError):
    """The graph holds operations that the target cannot run."""

    always = _EAGER


class TargetError(MmfreeError):
    """The target is unknown, or this machine cannot run it."""


class DeviceError(TargetError):
    """A device that the target runs on is full, lost or busy, or is not the one that was named.

    A model that has other targets too does not run on them instead: that would hide it.
    """


class ToolchainError(MmfreeError):
    """A compiler, a linker or an optional package is missing or failed."""


class ArtifactError(MmfreeError):
    """An artifact file is damaged, hostile, or of a newer schema."""


class CorpusError(MmfreeError):
    """Training text cannot be read or is too short."""


class InputError(MmfreeError, ValueError):
    """An argument of a call is wrong."""


class StateError(InputError):
    """A state does not belong to this model or batch, or a failed call left it incomplete."""
