"""What the compiler did to a model: collected, drawn as text, written as JSON."""

from __future__ import annotations

from mmfree_compiler.explaining.collect import explain_artifact, explain_graph, with_audit
from mmfree_compiler.explaining.history import History
from mmfree_compiler.explaining.schema import Explanation

__all__ = ["Explanation", "History", "explain_artifact", "explain_graph", "with_audit"]
