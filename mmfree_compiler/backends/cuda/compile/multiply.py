"""The lines of a tile's products: calls of kernels/gemv.py and gemm.py, in the table FUNCTIONS."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mmfree_compiler.backends.cuda.compile.shapes import Shape
from mmfree_compiler.backends.cuda.compile.tile import Tile


@dataclass(frozen=True)
class _Product:
    """`name` is its output; a weight's rows and the rows of `codes` have k columns."""

    name: str
    codes: str
    weight: str
    k: int


def multiply(tile: Tile, shape: Shape, first: str, end: str) -> None:
    """The integer sums of all products of a tile, for rows from `first` to before `end`."""
    products = list(_products(tile))
    for k in dict.fromkeys(product.k for product in products):
        some = [product for product in products if product.k == k]
        FUNCTIONS[shape.function](tile, shape, some, (first, end))


def _products(tile: Tile) -> Iterator[_Product]:
    for node in tile.part.nodes:
        if node.op == "ternary_linear":
            codes, _, weight = node.inputs[:3]
            assert codes is not None
            assert weight is not None
            yield _Product(node.outputs[0], codes, weight, tile.depth(codes))


Rows = tuple[str, str]
Emitter = Callable[[Tile, Shape, Sequence[_Product], Rows], None]


def _gemv(tile: Tile, shape: Shape, products: Sequence[_Product], rows: Rows) -> None:
    """One by one."""
    first, end = rows
    for product in products:
        pointer, stride = tile.rows_of(product.codes)
        source = f"{pointer} + {first} * {stride}, {stride}, {end} - {first}"
        made = _call(shape, source, tile.constant(product.weight), product.k)
        tile.sums[product.name] = tile.writer.bind(f"{product.name}.sum", made)


def _gemm(tile: Tile, shape: Shape, products: Sequence[_Product], rows: Rows) -> None:
    """All at once: while one multiplies, the others load. Shared codes are loaded once."""
    first, end = rows
    shared = len({product.codes for product in products}) == 1
    pointers = [tile.rows_of(x.codes)[0] for x in (products[:1] if shared else products)]
    _, stride = tile.rows_of(products[0].codes)
    source = f"({', '.join(pointers)},), {stride}, {first}, {end}"
    weights = ", ".join(tile.constant(product.weight) for product in products)
    sums = tile.writer.bind("sums", _call(shape, source, f"({weights},)", products[0].k))
    for n, product in enumerate(products):
        tile.sums[product.name] = f"{sums}[{n}]"


def _call(shape: Shape, source: str, weights: str, k: int) -> str:
    column = f"tl.program_id(0) * {shape.columns}"
    return f"{shape.function}.{shape.function}({source}, {weights}, {column}, {shape.sizes(k)})"


FUNCTIONS: Mapping[str, Emitter] = {"gemv": _gemv, "gemm": _gemm}
