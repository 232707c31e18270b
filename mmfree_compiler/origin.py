"""The source line and the module that a node, an error or a decision of the tracer comes from."""

from __future__ import annotations

import linecache
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType

import torch
from torch import nn
from torch.fx import GraphModule, Node

_TORCH, _HERE = Path(torch.__file__).parent, Path(__file__).parent
_MADE_AT_RUN_TIME = 1 << 9  # Py_TPFLAGS_HEAPTYPE
_OTHERS = {*sys.stdlib_module_names, "mmfree_compiler", "numpy", "sympy", "torch"} - {"__main__"}
# Without its source, as in `python -c`, a frame has no line of code.
_FRAME = re.compile(
    r'File "(?P<file>[^"]+)", line (?P<line>\d+), in \S+(?:\n(?!\s*File ")\s*(?P<code>.+))?'
)


def place_of(node: Node) -> str:
    """The model's line that made a node; without its source, the module that did."""
    return source_line(node) or str(node.target)


def source_line(node: Node) -> str:
    """`file:line: code` of the innermost recorded line of the model.

    Without one, as for a layer of torch in an nn.Sequential, the module that made the node, such as
    "net.2 (Linear)"; "" where nothing was recorded.
    """
    return own_line(node) or _maker(node) or next(map(_shown, reversed(_frames(node))), "")


def own_line(node: Node) -> str:
    """`file:line: code` of the innermost recorded line of the model, "" without one."""
    own = [frame for frame in _frames(node) if _is_own(frame)]
    return _shown(own[-1]) if own else ""


def made_by(node: Node) -> tuple[str, str]:
    """The module and the line of the model that made a node; "" for what is not known."""
    line = own_line(node)
    if line:
        return module_of(node), line
    module = _maker(node)
    return module, "" if module else source_line(node)


def placed(module: str, line: str) -> str:
    """What `made_by` found, as part of a sentence: "in net.2 (Linear) at net.py:9: y = net(x)"."""
    known = [f"{word} {what}" for word, what in (("in", module), ("at", line)) if what]
    return " ".join(known) or "at an unknown line"


def module_of(node: Node) -> str:
    """The path and class of the module whose forward made a node, "layers.0 (GELU)".

    "" for a module that is part of none.
    """
    made = _maker(node)
    return made if " " in made else ""


def name_in_file(part: nn.Module) -> str:
    """What messages call a module that was read from a file, "node '/layers.0/MatMul'"; else ""."""
    return str(vars(part).get("name_in_file", ""))


def name_modules(gm: GraphModule, module: nn.Module) -> None:
    """Call the submodules that nodes are from as files do, where they were read from files."""
    names = _names_of(module)
    for node in gm.graph.nodes:
        stack = node.meta.get("nn_module_stack") or {}
        for key, (path, kind) in stack.items():
            stack[key] = names.get(path, path), kind


def _names_of(module: nn.Module) -> dict[str, str]:
    """Paths of submodules -> what messages call them."""
    return {path: name_in_file(part) or path for path, part in module.named_modules()}


def _maker(node: Node) -> str:
    """As `module_of`, and the class alone of a module that is part of none."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return _module(*stack[-1]) if stack else ""


def _module(path: str, kind: object) -> str:
    name = str(kind).rpartition(".")[2]
    return f"{path} ({name})" if path else name


def _frames(node: Node) -> list[dict[str, str | None]]:
    return [match.groupdict() for match in _FRAME.finditer(node.stack_trace or "")]


def _is_own(frame: dict[str, str | None]) -> bool:
    """Whether it is a line of a model whose code is known: neither torch's nor this package's.

    The package's models are models like others.
    """
    file = Path(str(frame["file"]))
    ours = file.is_relative_to(_HERE) and not file.is_relative_to(_HERE / "models")
    return bool(frame["code"]) and not ours and not file.is_relative_to(_TORCH)


def _shown(frame: dict[str, str | None]) -> str:
    return _text(str(frame["file"]), str(frame["line"]), frame["code"] or "")


def running_line() -> str:
    """As `line_of`, of the code that called this."""
    return line_of(sys._getframe(1))


def running_module(module: nn.Module) -> str:
    """The path and class of the innermost part of `module` whose method runs now, "" if none."""
    frames = (frame for frame, _ in traceback.walk_stack(sys._getframe(1)))
    return next(_parts(frames, module), "")


def raising_place(error: BaseException, module: nn.Module) -> str:
    """The innermost line of a model that raised `error`; the part of `module` without one."""
    frames = list(traceback.walk_tb(error.__traceback__))[::-1]
    lines = [_line(x.f_code.co_filename, number) for x, number in frames if in_model(x)]
    if lines:
        return lines[0]
    return next(_parts((x for x, _ in frames), module), type(module).__name__)


def _parts(frames: Iterable[FrameType], module: nn.Module) -> Iterator[str]:
    """The path and class of each part of `module` that a frame runs a method of."""
    names = _names_of(module)
    paths = {id(part): names[path] for path, part in module.named_modules()}
    for frame in frames:
        part = frame.f_locals.get("self")
        if isinstance(part, nn.Module) and id(part) in paths:
            yield _module(paths[id(part)], type(part).__name__)


def line_of(frame: FrameType | None) -> str:
    """`file:line: code` of the model's line that `frame` runs or was called from, "" if none.

    Of a model that was read from a file, what the file calls the part.
    """
    while frame is not None:
        if in_model(frame):
            return _line(frame.f_code.co_filename, frame.f_lineno)
        part = frame.f_locals.get("self") if frame.f_code.co_name == "forward" else None
        if isinstance(part, nn.Module) and name_in_file(part):
            return _module(name_in_file(part), type(part).__name__)
        frame = frame.f_back
    return ""


def _line(file: str, number: int) -> str:
    return _text(file, str(number), linecache.getline(file, number).strip())


def _text(file: str, line: str, code: str) -> str:
    """Without the colon that ends the head of a block: a cause follows after another one."""
    return f"{file}:{line}: {code.removesuffix(':')}" if code else f"{file}:{line}"


def in_model(frame: FrameType) -> bool:
    """Whether a frame may run code of a model.

    Code that belongs to no Python module is a model's if its line is known and torch.fx did not
    make it: torch makes such code too.
    """
    name = frame.f_globals.get("__name__")
    if name is not None:
        return may_be_model(name)
    file = frame.f_code.co_filename
    known = bool(linecache.getline(file, frame.f_lineno))
    return known and not file.startswith("<eval_with_key>")


def may_be_model(module: object) -> bool:
    """Whether code of the Python module with this name may belong to a model."""
    name = str(module)
    return name.partition(".")[0] not in _OTHERS or name.startswith("mmfree_compiler.models.")


def may_be_models_class(kind: type) -> bool:
    """Whether a class may belong to a model.

    One that `exec` made without a `__name__` says that it is built in, but was made at run time.
    """
    made = kind.__module__ == "builtins" and kind.__flags__ & _MADE_AT_RUN_TIME
    return bool(made) or may_be_model(kind.__module__)
