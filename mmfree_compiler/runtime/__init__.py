"""Runs artifacts: `load` a model.mmfree, call the session, generate text.

Needs only NumPy, apache-tvm-ffi and pydantic, and `tokenizers` for text.
"""

from mmfree_compiler.runtime.generation import Generation, Token
from mmfree_compiler.runtime.sampling import Sampling
from mmfree_compiler.runtime.session import Session, load
from mmfree_compiler.runtime.state import State

__all__ = ["Generation", "Sampling", "Session", "State", "Token", "load"]
