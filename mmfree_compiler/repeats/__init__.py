"""Equal submodules are traced once: 24 layers of one kind cost the tracer a single one.

While `shared` holds, the first of several equal calls (the leader) is traced between two marks and
each later one leaves a single `repeat` node; `inline` then puts a copy of the leader's nodes, with
the other's parameters, in its place. The graph is what tracing makes of every one of them, as long
as a forward depends on its module's attributes and its arguments alone.
"""

from mmfree_compiler.repeats.equal import Unshared
from mmfree_compiler.repeats.inline import inline
from mmfree_compiler.repeats.marks import MARKS
from mmfree_compiler.repeats.sharing import Sharing, shared

__all__ = ["MARKS", "Sharing", "Unshared", "inline", "shared"]
