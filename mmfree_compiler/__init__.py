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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmfree_compiler import models as models
    from mmfree_compiler.compiled_model import CompiledModel as CompiledModel
    from mmfree_compiler.compiler import compile as compile  # noqa: A004
    from mmfree_compiler.compiler import explain as explain
    from mmfree_compiler.errors import MmfreeError as MmfreeError
    from mmfree_compiler.runtime import load as load
    from mmfree_compiler.target import Target as Target

    __version__: str

__all__ = ["CompiledModel", "MmfreeError", "Target", "compile", "explain", "load", "models"]

_LAZY = {
    "CompiledModel": "compiled_model",
    "MmfreeError": "errors",
    "Target": "target",
    "compile": "compiler",
    "explain": "compiler",
    "load": "runtime",
}


def __getattr__(name: str) -> Any:
    if name == "models":
        return _imported("models")
    if name == "__version__":
        from importlib.metadata import version

        return version("mmfree-compiler")
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_imported(_LAZY[name]), name)


def _imported(module: str) -> Any:
    """A module of this package. Raises ToolchainError when it needs what is not installed."""
    from mmfree_compiler.errors import ToolchainError

    try:
        return import_module(f"{__name__}.{module}")
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        cause = f"needs {package}, which is not installed"
        hint = "pip install 'mmfree-compiler[cpu]'"
        raise ToolchainError(f"{__name__}.{module}", cause, hint) from error


def __dir__() -> list[str]:
    return sorted(__all__)
