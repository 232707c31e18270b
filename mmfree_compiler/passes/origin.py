"""The source line and the module that a node comes from."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch.fx import Node

_TORCH = Path(torch.__file__).parent
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in \S+\n\s*(?P<code>.*)')


def source_line(node: Node) -> str:
    """`file:line: code` of the innermost recorded frame outside of torch, "" without frames."""
    frames = [match.groupdict() for match in _FRAME.finditer(node.stack_trace or "")]
    if not frames:
        return ""
    outside = [frame for frame in frames if not Path(frame["file"]).is_relative_to(_TORCH)]
    innermost = (outside or frames)[-1]
    return "{file}:{line}: {code}".format(**innermost)


def module_of(node: Node) -> str:
    """The path and class of the module whose forward made a node, "layers.0 (GELU)"."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return ""
    path, kind = stack[-1]
    return f"{path} ({str(kind).rpartition('.')[2]})" if path else ""
