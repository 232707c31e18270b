"""The op table: every mmfree op declared once. Its reference in plain torch is its meaning.

All values are rows: shape `(..., width)`, a row a token; leading dimensions are batch and time.
The references follow the numerics contract in docs/numerics.md, whose sections the comments cite.
Importing this registers `torch.ops.mmfree`.
"""

from mmfree_compiler.ops import rows, scans
from mmfree_compiler.ops.pointwise import POINTWISE_BINARY, POINTWISE_UNARY
from mmfree_compiler.ops.table import KINDS, OPS, Op

__all__ = ["KINDS", "OPS", "POINTWISE_BINARY", "POINTWISE_UNARY", "Op", "rows", "scans"]
