"""The part of run/ that needs cuda-bindings, which compiling does without."""

from __future__ import annotations

from types import ModuleType

from mmfree_compiler.errors import TargetError


def device_module() -> ModuleType:
    """run/device.py. Raises TargetError where cuda-bindings is not installed."""
    try:
        from mmfree_compiler.backends.cuda.run import device
    except ImportError as error:
        cause, hint = "has no cuda-bindings", "pip install 'mmfree-compiler[cuda-runtime]'"
        raise TargetError("this machine", cause, hint) from error
    return device
