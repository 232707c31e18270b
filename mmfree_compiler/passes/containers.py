"""The containers of a graph's outputs -> a Structure, which says how a call returns them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import fx
from torch.utils import _pytree as pytree

from mmfree_compiler.errors import UnsupportedError
from mmfree_compiler.structure import Constant, Fields, Items, Output, Scalar, Structure

_HINT = "Return tensors and constants in tuples, lists, dicts and named tuples"


def outputs_of(gm: fx.GraphModule) -> tuple[list[fx.Node], Any]:
    """The nodes that a graph returns, and the container that it returns them in.

    The container holds Output(0), Output(1)... in place of the nodes; other values are as they are.
    """
    (output,) = gm.graph.find_nodes(op="output")
    leaves, own = pytree.tree_flatten(output.args[0])
    nodes = [leaf for leaf in leaves if isinstance(leaf, fx.Node)]
    places = map(Output, range(len(nodes)))
    marked = [next(places) if isinstance(leaf, fx.Node) else leaf for leaf in leaves]
    # An exported graph returns a flat list, which its code generator puts into containers.
    generator = gm.graph._codegen
    exported = generator.pytree_info.out_spec if isinstance(generator, _PyTree) else None
    return nodes, pytree.tree_unflatten(marked, exported or own)


_PyTree = fx.graph._PyTreeCodeGen


@dataclass
class Describer:
    """Describes containers; `simplified` names the types that a manifest can only hold as dicts."""

    simplified: list[str] = field(default_factory=list)

    def __call__(self, value: Any) -> Structure:
        """Raises UnsupportedError on containers and values that a manifest cannot hold."""
        for accepts, describe in _KINDS:
            if accepts(value):
                return describe(self, value)
        cause = f"holds a {type(value).__name__}, which an artifact cannot hold"
        raise UnsupportedError("what the module returns", cause, _HINT)

    def _items(self, value: list[Any] | tuple[Any, ...]) -> Structure:
        return Items("list" if isinstance(value, list) else "tuple", tuple(map(self, value)))

    def _named(self, value: Any) -> Structure:
        fields = tuple(zip(value._fields, map(self, value), strict=True))
        return Fields("namedtuple", fields, type(value).__name__)

    def _mapping(self, value: Mapping[Any, Any]) -> Structure:
        return self._dict(value, value.items())

    def _dataclass(self, value: Any) -> Structure:
        names = [field.name for field in dataclasses.fields(value)]
        return self._dict(value, ((name, getattr(value, name)) for name in names))

    def _dict(self, value: Any, items: Iterable[tuple[Any, Any]]) -> Structure:
        if type(value) is not dict:
            self.simplified.append(type(value).__name__)
        return Fields("dict", tuple((self._key(key), self(item)) for key, item in items))

    def _key(self, key: Any) -> Scalar:
        found = self(key)
        if isinstance(found, Constant):
            return found.constant
        raise UnsupportedError("what the module returns", f"has the key {key!r}", _HINT)


def _is_scalar(value: Any) -> bool:
    """Whether JSON can hold it."""
    finite = not isinstance(value, float) or math.isfinite(value)
    return value is None or (type(value) in (bool, int, float, str) and finite)


# The kinds of values in order of preference, and how each is described.
_KINDS: tuple[tuple[Callable[[Any], bool], Callable[[Describer, Any], Structure]], ...] = (
    (lambda value: isinstance(value, Output), lambda _, value: value),
    (_is_scalar, lambda _, value: Constant(value)),
    (lambda value: hasattr(value, "_fields"), Describer._named),
    (lambda value: isinstance(value, list | tuple), Describer._items),
    (lambda value: isinstance(value, Mapping), Describer._mapping),
    (dataclasses.is_dataclass, Describer._dataclass),
)
