"""The source line and the module that a node, an error or a decision of the tracer comes from."""

from __future__ import annotations

import linecache
import re
import sys
import traceback
from pathlib import Path
from types import FrameType

import torch
from torch.fx import Node

_TORCH = Path(torch.__file__).parent
_OTHERS = {*sys.stdlib_module_names, "mmfree_compiler", "numpy", "sympy", "torch"} - {"__main__"}
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


def running_line() -> str:
    """`file:line: code` of the innermost line of a model that runs now, "" outside of models."""
    return line_of(sys._getframe(1))


def raising_line(error: BaseException) -> str:
    """`file:line: code` of the innermost line of a model that raised `error`, "" without one."""
    lines = [
        _line(frame.f_code.co_filename, number)
        for frame, number in traceback.walk_tb(error.__traceback__)
        if in_model(frame)
    ]
    return lines[-1] if lines else ""


def line_of(frame: FrameType | None) -> str:
    """`file:line: code` of the model's line that `frame` runs or was called from, "" if none."""
    while frame is not None and not in_model(frame):
        frame = frame.f_back
    return _line(frame.f_code.co_filename, frame.f_lineno) if frame else ""


def _line(file: str, number: int) -> str:
    code = linecache.getline(file, number).strip()
    return f"{file}:{number}: {code}" if code else f"{file}:{number}"


def in_model(frame: FrameType) -> bool:
    """Whether a frame may run code of a model."""
    return may_be_model(frame.f_globals.get("__name__"))


def may_be_model(module: object) -> bool:
    """Whether code of the Python module with this name may belong to a model."""
    name = str(module)
    return name.partition(".")[0] not in _OTHERS or name.startswith("mmfree_compiler.models.")
