"""Recognizing a per-token int8 quantizer: find its region of the graph, then prove what it is.

Models write the quantizer in many ways (amax or max, 127/max or max/127, clamp before or after,
codes scaled back before or after the product). The region between a row x and a product's input is
found by walking back over the ops that quantizers consist of. That it *is* numerics 5 is shown by
running it and the reference on rows: of zeros, of all magnitudes, and around the numbers that the
region itself holds, since its ops change their course at these only.
"""

from __future__ import annotations

import heapq
import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from mmfree_compiler.ops import OPS
from mmfree_compiler.passes.constants import evaluate, run
from mmfree_compiler.passes.pattern import aten

QUANTIZER_OPS = {
    aten.abs.default,
    aten.amax.default,
    aten.clamp.default,
    aten.clamp.Tensor,
    aten.clamp_max.default,
    aten.div.Tensor,
    aten.linalg_vector_norm.default,
    aten.max.dim,
    aten.maximum.default,
    aten.minimum.default,
    aten.mul.Tensor,
    aten.neg.default,
    aten.reciprocal.default,
    aten.round.default,
    aten.to.dtype,
    aten.unsqueeze.default,
    operator.getitem,
}
# Maxima of the probe rows: zero, and powers of ten far beyond usual activations.
MAGNITUDES = (0.0, *(10.0**k for k in range(-24, 25)))
AROUND = (0.3, 0.9, 1.1, 3.0)  # times each number at which a clamp of the region may set in
PROBE_WIDTH = 64
# Stands for an absent eps: 127 / NO_EPS is finite in fp32, and only rows of zeros are below it.
NO_EPS = 1e-30
# Where x * a is this close to a .5 edge, codes may differ by 1 (numerics 5).
EDGE = 1e-4
TOLERANCE = 1e-3  # elsewhere, in codes
# A gain this close to 1 is 1: fp32 rounding when codes are scaled back.
GAIN_ROUNDING = 1e-5


@dataclass(frozen=True)
class Factor:
    """What multiplies or divides a product's output: a value of one column, or a number."""

    value: Node | float
    divides: bool


@dataclass(frozen=True)
class Region:
    """What lies between row `source` and a product's input `result`, scaled by `factors`.

    `constants` are the constant nodes that it reads.
    """

    source: Node
    nodes: tuple[Node, ...]  # in the graph's order
    result: Node
    factors: tuple[Factor, ...]
    constants: frozenset[Node]

    def compute(self, gm: GraphModule, known: dict[Node, Any], probe: Tensor) -> Tensor:
        """The scaled result on rows `probe`: dequantized rows if the region is a quantizer."""
        values: dict[Node, Any] = {**known, self.source: probe}
        for node in self.nodes:
            values[node] = run(gm, node, values)
        product: Tensor = values[self.result].float()
        for factor in self.factors:
            value = values[factor.value] if isinstance(factor.value, Node) else factor.value
            product = product / value if factor.divides else product * value
        return product


@dataclass(frozen=True)
class Proof:
    """The region is `gain` times `ops.quantize` with this eps, scaled back."""

    eps: float
    gain: float


def prove(gm: GraphModule, region: Region) -> Proof | None:
    """Run the region on probe rows; None when it is not a per-token int8 quantizer."""
    known = {node: evaluate(gm, node) for node in region.constants}
    numbers = _numbers(region, known)
    try:
        for eps in [*(eps for number in numbers for eps in (number, 127 * number)), NO_EPS]:
            gain = _gain(gm, region, known, eps, _probe(region.source.meta["val"], numbers))
            if gain is not None:
                return Proof(eps, gain)
    except (RuntimeError, TypeError, KeyError):  # the region needs more than its row
        return None
    return None


def _numbers(region: Region, known: dict[Node, Any]) -> list[float]:
    """The positive numbers that the region holds, the smallest first.

    One of them may bound max|x| from below; where max|x|/127 is bounded, it is 127 times a number.
    """
    numbers: set[float] = set()
    for node in region.nodes:
        arguments = (*node.args, *node.kwargs.values())
        numbers.update(abs(float(a)) for a in arguments if isinstance(a, int | float))
    for value in known.values():
        if isinstance(value, Tensor) and value.numel() == 1:
            numbers.add(abs(float(value)))
    return sorted(number for number in numbers if 0 < number < math.inf)


def _gain(
    gm: GraphModule, region: Region, known: dict[Node, Any], eps: float, probe: Tensor
) -> float | None:
    """The factor between the region and numerics 5 on the probe; None if they differ otherwise.

    Where no eps is written, the region may make NaN of a row of zeros.
    """
    codes, scale = OPS["quantize"].reference(probe, eps)
    found = region.compute(gm, known, probe)
    if found.shape != probe.shape:
        return None
    gain = (found / (codes * scale))[codes.abs() == 127].median()
    gain = torch.where((gain - 1).abs() < GAIN_ROUNDING, 1.0, gain)
    error = (found / (scale * gain) - codes).abs()
    on_edge = ((probe / scale).frac().abs() - 0.5).abs() < EDGE
    agrees = error <= torch.where(on_edge, 1 + TOLERANCE, TOLERANCE)
    if eps == NO_EPS:
        agrees |= (probe == 0) & found.isnan()
    return gain.item() if agrees.all() else None


def _probe(like: Tensor, numbers: list[float]) -> Tensor:
    """Rows (M, width), or (1, ..., M/3, 3, width) where `like` has its rank; each also negated.

    The width is at most PROBE_WIDTH: quantizers do not depend on it. A clamp of max|x|, of
    max|x|/127, of 127/max|x| or of x at a number sets in at one of its `edges`.
    """
    edges = [edge for n in numbers for edge in (n, 127 * n, n / 127, 1 / n, 127 / n)]
    maxima = [*MAGNITUDES, *(a * edge for edge in edges for a in AROUND if 1e-24 < edge < 1e24)]
    maxima += [0.0] * (-len(maxima) % 3)
    generator = torch.Generator().manual_seed(0)
    width = min(like.shape[-1], PROBE_WIDTH)
    rows = torch.randn(len(maxima), width, generator=generator)
    rows = rows / rows.abs().amax(-1, keepdim=True) * torch.tensor(maxima)[:, None]
    rows = torch.cat([rows, -rows])
    if like.dim() < 3:
        return rows
    return rows.reshape(*[1] * (like.dim() - 3), -1, 3, width)


def regions(result: Node, factors: tuple[Factor, ...], constants: set[Node]) -> Iterator[Region]:
    """Regions that may quantize, the smallest first: one source, a round and a row maximum each.

    Nodes are taken latest first: whenever a single one is left, all paths run through it.
    """
    seen = {result, *(f.value for f in factors if isinstance(f.value, Node))}
    read = frozenset(seen & constants)
    seen -= constants
    frontier = [_Latest(node) for node in seen]
    heapq.heapify(frontier)
    taken: list[Node] = []
    while frontier:
        node = heapq.heappop(frontier).node
        if not frontier and _quantizes(taken):
            yield Region(node, tuple(reversed(taken)), result, factors, read)
        if node.target not in QUANTIZER_OPS:
            return
        taken.append(node)
        sources = set(node.all_input_nodes)
        read |= sources & constants
        for source in sources - constants - seen:
            seen.add(source)
            heapq.heappush(frontier, _Latest(source))


def is_rounded(result: Node) -> bool:
    """Whether quantizer ops lead back from `result` to a round."""
    queue, seen = [result], {result}
    while queue:
        node = queue.pop()
        if node.target is aten.round.default:
            return True
        if node.target in QUANTIZER_OPS:
            new = set(node.all_input_nodes) - seen
            queue.extend(new)
            seen |= new
    return False


@dataclass(frozen=True)
class _Latest:
    """Orders nodes for heapq: the last node of the graph comes first."""

    node: Node

    def __lt__(self, other: _Latest) -> bool:
        return other.node < self.node


_ROW_MAXIMA = {aten.amax.default, aten.max.dim, aten.linalg_vector_norm.default}


def _quantizes(nodes: Sequence[Node]) -> bool:
    targets = {node.target for node in nodes}
    return aten.round.default in targets and not targets.isdisjoint(_ROW_MAXIMA)
