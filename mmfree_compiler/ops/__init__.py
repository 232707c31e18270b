"""The op table: one op per file. The reference of an op, in plain torch, is its meaning.

To add an op, copy the file of a similar one and change it. Every module of this folder is imported,
so no other file here changes; each backend that supports the op needs an entry in its own table.

All values are rows: shape `(..., width)`, one row per token; leading dimensions are batch and time.
The references are the steps of docs/arithmetic.md. They follow the contract in docs/numerics.md,
whose sections the comments cite.
Importing this registers `torch.ops.mmfree`.
"""

from importlib import import_module
from pkgutil import iter_modules

from mmfree_compiler.ops.spelling import Builder, Operand, Rule
from mmfree_compiler.ops.table import KINDS, OPS, ROLES, Kind, Op, Parameter, StateRule

__all__ = [
    "KINDS",
    "OPS",
    "ROLES",
    "Builder",
    "Kind",
    "Op",
    "Operand",
    "Parameter",
    "Rule",
    "StateRule",
]

for _module in iter_modules(__path__, f"{__name__}."):
    import_module(_module.name)
