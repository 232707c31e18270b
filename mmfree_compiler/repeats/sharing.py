"""Making modules call a mark instead of their forward once an equal module has been traced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.nn.modules import module as hooks
from torch.utils import _pytree as pytree

from mmfree_compiler.repeats.equal import Unshared, argument, modes, signature
from mmfree_compiler.repeats.marks import ENTER, LEAVE, OUTPUTS, REPEAT

_NUMBERS = count()  # numbers of leaders, never used twice
_HOOKS_OF_ALL = (hooks._global_forward_pre_hooks, hooks._global_forward_hooks)


@dataclass(frozen=True)
class Leader:
    """A traced call: its number, and its results, which are tensors and plain values."""

    number: int
    results: tuple[Any, ...]
    structure: Any

    def rebuilt(self, tensors: Sequence[Tensor]) -> Any:
        """The call's results with `tensors` in place of its own."""
        return pytree.tree_unflatten(_filled(self.results, tensors), self.structure)


class Sharing:
    """One trace: the modules whose forward is replaced while it runs, and the calls so far."""

    def __init__(self, root: nn.Module) -> None:
        self.root = root
        self.signatures = _repeated(root)
        self.leaders: dict[int, nn.Module] = {}  # a leader's number -> its module
        self.repeats: list[nn.Module] = []  # REPEAT's last argument is an index into it
        self._calls: dict[Hashable, Leader | None] = {}  # None: equal calls are traced one by one

    def call(self, module: nn.Module, forward: Any, *args: Any, **kwargs: Any) -> Any:
        """The replacement of `module.forward`; `forward` is the original."""
        called_with = (args, tuple(kwargs.items()))
        leaves, structure = pytree.tree_flatten(called_with, _is_argument)
        tensors = _tensors(leaves)
        key = self._key(module, leaves, structure)
        if not tensors or key is None:
            return forward(*args, **kwargs)
        if key not in self._calls:
            return self._lead(key, module, forward, leaves, structure)
        leader = self._calls[key]
        if leader is None:
            return forward(*args, **kwargs)
        self.repeats.append(module)
        return leader.rebuilt(REPEAT(tensors, leader.number, len(self.repeats) - 1))

    def _key(self, module: nn.Module, leaves: list[Any], structure: Any) -> Hashable:
        """A value that equal calls have in common; None when there is none."""
        try:
            arguments = tuple(map(argument, leaves))
        except Unshared:
            return None
        return self.signatures[module], structure, arguments, modes()

    def _lead(
        self, key: Hashable, module: nn.Module, forward: Any, leaves: list[Any], structure: Any
    ) -> Any:
        """Trace the first of several equal calls, between two marks."""
        number = next(_NUMBERS)
        inside = _filled(leaves, ENTER(_tensors(leaves), number))
        args, named = pytree.tree_unflatten(inside, structure)
        results, made_as = pytree.tree_flatten(forward(*args, **dict(named)))
        leader = self._calls[key] = _leader(number, results, made_as)
        if leader is None:
            return pytree.tree_unflatten(results, made_as)
        self.leaders[number] = module
        return leader.rebuilt(LEAVE(_tensors(results), number))


def _is_argument(value: Any) -> bool:
    """Whether a part of a call's arguments is one value: tuples alone are taken apart.

    A forward may change a list, which a mark would not do.
    """
    return not isinstance(value, tuple)


def _tensors(leaves: Sequence[Any]) -> list[Tensor]:
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _filled(leaves: Sequence[Any], tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    """`leaves` with their tensors, in order, replaced."""
    rest = iter(tensors)
    return tuple(next(rest) if isinstance(leaf, Tensor) else leaf for leaf in leaves)


def _leader(number: int, results: list[Any], structure: Any) -> Leader | None:
    """The leader with these results; None when they cannot be rebuilt for equal calls."""
    tensors = _tensors(results)
    try:
        for leaf in results:
            argument(leaf)
    except Unshared:
        return None
    if not tensors or free_unbacked_symbols(tensors):  # sizes that depend on values
        return None
    OUTPUTS[number] = tensors
    return Leader(number, tuple(results), structure)


def _signature(module: nn.Module) -> Hashable:
    """The module's signature, None if it has none."""
    with suppress(Unshared):
        return signature(module)
    return None


def _repeated(root: nn.Module) -> dict[nn.Module, Hashable]:
    """The outermost submodules of `root` that have an equal, and their signatures."""
    if any(_HOOKS_OF_ALL):  # they see the calls within a leader only
        return {}
    signatures = {module: _signature(module) for module in root.modules()}
    counts = Counter(signatures.values())
    found: dict[nn.Module, Hashable] = {}

    def visit(parent: nn.Module) -> None:
        for child in parent.children():
            if signatures[child] is not None and counts[signatures[child]] > 1:
                found[child] = signatures[child]
            else:
                visit(child)

    visit(root)
    return found


@contextmanager
def shared(root: nn.Module) -> Iterator[Sharing]:
    """Replace the forwards of `root`'s repeated submodules while it is traced."""
    sharing = Sharing(root)
    for module in sharing.signatures:
        module.forward = partial(sharing.call, module, module.forward)
    try:
        yield sharing
    finally:
        for module in sharing.signatures:
            del module.forward
        for number in sharing.leaders:
            del OUTPUTS[number]
