"""mmfree_compiler: MatMul-free language models, compiled to ternary kernels.

    import mmfree_compiler as mmf
    compiled = mmf.compile("path/to/checkpoint")
    compiled.save("model.mmfree")

    session = mmf.load("model.mmfree")          # needs neither torch nor a compiler
    for token in session.generate("Once"): ...

Names are imported when first used, so that the runtime alone stays light.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from mmfree_compiler.errors import MmfreeError
from mmfree_compiler.target import Target

if TYPE_CHECKING:
    from mmfree_compiler import models as models
    from mmfree_compiler.compiler import CompiledModel as CompiledModel
    from mmfree_compiler.compiler import compile as compile  # noqa: A004
    from mmfree_compiler.runtime import load as load

__all__ = ["CompiledModel", "MmfreeError", "Target", "compile", "load", "models"]
__version__ = version("mmfree-compiler")

_LAZY = {
    "CompiledModel": ("mmfree_compiler.compiler", "CompiledModel"),
    "compile": ("mmfree_compiler.compiler", "compile"),
    "load": ("mmfree_compiler.runtime", "load"),
    "models": ("mmfree_compiler.models", None),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LAZY[name]
    loaded = import_module(module)
    return getattr(loaded, attribute) if attribute else loaded


def __dir__() -> list[str]:
    return sorted(__all__)
