"""Example inputs: a module must take them, or it is not the tracing that fails."""

from __future__ import annotations

import copy
import inspect
from inspect import Parameter, Signature

from torch import Tensor, nn

from mmfree_compiler.errors import InputError, MmfreeError
from mmfree_compiler.origin import raising_place
from mmfree_compiler.wording import counted, described


def check_number(module: nn.Module, examples: tuple[Tensor, ...]) -> None:
    """Raise InputError unless the forward of `module` takes as many inputs."""
    signature = inspect.signature(module.forward)
    try:
        signature.bind(*examples)
    except TypeError as error:
        forward = f"{type(module).__name__}.forward{_names(signature)}"
        cause = f"{counted(len(examples), 'tensor')} for {forward}"
        raise InputError("example_inputs", cause, "Pass one tensor for each parameter") from error


def check_runs(module: nn.Module, examples: tuple[Tensor, ...]) -> None:
    """Raise InputError, which names the line, when `module` itself raises on its examples.

    Errors of this package are passed on: an imported model names its own nodes.
    A copy of it runs, since a forward may write into parameters; what cannot be copied passes.
    """
    try:
        module = copy.deepcopy(module)
    except Exception:  # the user's code may raise anything
        return
    try:
        module(*(x.clone() for x in examples))
    except MmfreeError:
        raise
    except Exception as error:  # the user's code may raise anything
        cause = f"the module itself fails on them: {described(error)}"
        place = raising_place(error, module)
        hint = f"Pass inputs that it takes, or change its forward; it fails at {place}"
        raise InputError("example_inputs", cause, hint) from error


def _names(signature: Signature) -> Signature:
    """The signature without types."""
    plain = [x.replace(annotation=Parameter.empty) for x in signature.parameters.values()]
    return Signature(plain)
