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
_PACKAGE = Path(__file__).parent
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
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not is_model_code(frame.f_code.co_filename):
        frame = frame.f_back
    return line_at(frame.f_code.co_filename, frame.f_lineno) if frame else ""


def raising_line(error: BaseException) -> str:
    """`file:line: code` of the innermost line of a model that raised `error`, "" without one."""
    frames = [(f.filename, f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    lines = [line_at(name, number) for name, number in frames if is_model_code(name)]
    return lines[-1] if lines else ""


def line_at(file: str, number: int | None) -> str:
    """`file:line: code` of a line, without the code where the file cannot be read."""
    code = linecache.getline(file, number or 0).strip()
    return f"{file}:{number}: {code}" if code else f"{file}:{number}"


def is_model_code(file: str) -> bool:
    """Whether a file may hold models: it is neither torch's nor the compiler's."""
    path = Path(file)
    own = path.is_relative_to(_PACKAGE) and not path.is_relative_to(_PACKAGE / "models")
    return not own and not path.is_relative_to(_TORCH)
