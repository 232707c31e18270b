"""Equal submodules are traced once: 24 equal layers cost the tracer as much as one.

Within `shared`, the first of several equal calls (the leader) is traced between two marks and each
later call becomes a single `repeat` node. `inline` then replaces that node by a copy of the
leader's nodes on the other module's parameters. The graph is the one that tracing every module
makes, as long as a forward depends on its module's attributes and its arguments only.
"""

from mmfree_compiler.repeats.inline import inline
from mmfree_compiler.repeats.marks import MARKS
from mmfree_compiler.repeats.sharing import shared

__all__ = ["MARKS", "inline", "shared"]
