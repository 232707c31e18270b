"""Equal submodules are traced once: 24 equal layers cost the tracer as much as one.

Within `shared`, the first of several equal calls (the leader) is traced between two marks and each
later call becomes a single `repeat` node. `inline` then replaces that node by a copy of the
leader's nodes on the other module's parameters. The graph is the same as without sharing, as long
as a forward depends only on its arguments and its module's attributes, and changes neither:
`equal` and `assumptions.memory` see to that.
"""

from mmfree_compiler.repeats.inline import inline
from mmfree_compiler.repeats.marks import MARKS
from mmfree_compiler.repeats.sharing import shared

__all__ = ["MARKS", "inline", "shared"]
