"""Runs artifacts: `load` a model.mmfree, call the session, generate text.

Needs NumPy, apache-tvm-ffi and pydantic only, and `tokenizers` where text is used.
"""

from mmfree_compiler.runtime.generation import Generation, Token
from mmfree_compiler.runtime.sampling import Sampling
from mmfree_compiler.runtime.session import Session, load
from mmfree_compiler.runtime.state import State

__all__ = ["Generation", "Sampling", "Session", "State", "Token", "load"]
