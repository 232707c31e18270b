"""Small modules written in mmfree ops: what the tests of Programs and backends compile."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from amx_emulation import emulate_amx
from numpy.typing import NDArray
from torch import Tensor, nn

from mmfree_compiler.backends.cpu.features import lacks
from mmfree_compiler.backends.cpu.run.states import CpuStates
from mmfree_compiler.backends.cpu.variants import VARIANTS
from mmfree_compiler.runtime import State

mm = torch.ops.mmfree


def runnable_variants() -> list[str]:
    """The CPU variants that this machine can run, AMX in emulation."""
    emulate_amx()
    return [name for name, variant in VARIANTS.items() if not lacks(variant)]


# Variants that have the same code for all but products: see test_cpu_special_values.py.
ALIKE = (
    ("x86-64-amx", "x86-64-avx512vbmi", "x86-64-avx512vnni"),
    ("aarch64-i8mm", "aarch64-dotprod", "aarch64"),
)


def distinct(names: Iterable[str]) -> list[str]:
    """The variants among `names`, but the last alone of those that are ALIKE."""
    groups = {name: alike[0] for alike in ALIKE for name in alike}
    return list({groups.get(name, name): name for name in names}.values())


def state_rows(state: State) -> NDArray[np.float32]:
    """A CPU session's state as its kernels see it: (B, state_width), padding included."""
    assert isinstance(state.states, CpuStates)
    return state.states.array


def ternary(n: int, k: int, generator: torch.Generator) -> Tensor:
    return torch.randint(-1, 2, (n, k), generator=generator, dtype=torch.int8)


# The (N, K) of Products: some are whole tiles and blocks.
SHAPES = [(16, 16), (40, 96), (7, 5), (33, 130), (256, 512)]


class Products(nn.Module):
    """Integer products of each of SHAPES, with and without a bias."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weights = [ternary(n, k, generator) for n, k in SHAPES]
        self.biases = [torch.randint(-9, 10, (n,), generator=generator) for n, _ in SHAPES]

    def forward(self, *rows: Tensor) -> list[Tensor]:
        one, sums = torch.ones(1), []
        for x, weight, bias in zip(rows, self.weights, self.biases, strict=True):
            codes, scale = mm.quantize(x, 1e-5)
            sums += [mm.ternary_linear(codes, scale, weight, one, b) for b in (None, bias.float())]
        return sums

    def exact(self, *rows: Tensor) -> list[Tensor]:
        sums = []
        for x, weight, bias in zip(rows, self.weights, self.biases, strict=True):
            product = torch.from_numpy(x.long().numpy() @ weight.long().numpy().T)
            sums += [product, product + bias]
        return sums


def integer_rows(count: int) -> list[Tensor]:
    """Rows of integers with absmax 127 are their own codes, of scale 1."""
    generator = torch.Generator().manual_seed(4)
    rows = [torch.randint(-127, 128, (count, k), generator=generator).float() for _, k in SHAPES]
    for x in rows:
        x[:, 0] = 127
        x[1], x[2] = 127, -127
    return rows


class Block(nn.Module):
    """One MatMul-free layer, already in the ops that the graph passes end with."""

    def __init__(self, D: int, inner: int, F: int, generator: torch.Generator) -> None:
        super().__init__()
        shapes = {
            "wi": (inner, D),
            "wf": (inner, D),
            "wg": (inner, D),
            "wo": (D, inner),
            "gate": (F, D),
            "up": (F, D),
            "down": (D, F),
        }
        for name, (n, k) in shapes.items():
            self.register_buffer(name, ternary(n, k, generator))
            self.register_buffer(f"{name}_scale", torch.rand(1, generator=generator) * 0.05 + 0.01)
        widths = {"an": D, "ni": D, "nf": D, "ng": D, "gn": inner, "no": inner, "mn": D, "nu": D}
        for name, width in (widths | {"nd": F}).items():
            self.register_buffer(name, torch.rand(width, generator=generator) + 0.5)
        self.register_buffer("bound", torch.rand(inner, generator=generator) * 0.5)

    def forward(self, x: Tensor) -> Tensor:
        a = mm.norm_quant(x, self.an, 1e-6, [self.ni, self.nf, self.ng], 1e-6, 1e-5)
        i = mm.ternary_linear(a[0], a[1], self.wi, self.wi_scale, None)
        f = mm.ternary_linear(a[2], a[3], self.wf, self.wf_scale, None)
        g = mm.ternary_linear(a[4], a[5], self.wg, self.wg_scale, None)
        c, forget = mm.mlgru_gates(i, f, self.bound)
        o = mm.gated_norm(g, mm.mlgru_scan(c, forget), self.gn, 1e-6)
        a = mm.norm_quant(o, None, 0.0, [self.no], 1e-6, 1e-5)
        x = mm.add(x, mm.ternary_linear(a[0], a[1], self.wo, self.wo_scale, None))
        a = mm.norm_quant(x, self.mn, 1e-6, [self.nu], 1e-6, 1e-5)
        gate = mm.ternary_linear(a[0], a[1], self.gate, self.gate_scale, None)
        up = mm.ternary_linear(a[0], a[1], self.up, self.up_scale, None)
        a = mm.norm_quant(mm.swiglu(gate, up), None, 0.0, [self.nd], 1e-6, 1e-5)
        out: Tensor = mm.add(x, mm.ternary_linear(a[0], a[1], self.down, self.down_scale, None))
        return out


class TinyLM(nn.Module):
    """Embedding, blocks, ternary head; widths that are not multiples of a tile."""

    def __init__(self, V: int = 37, D: int = 24, inner: int = 40, F: int = 20, L: int = 3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("table", torch.randn(V, D, generator=generator))
        self.layers = nn.ModuleList(Block(D, inner, F, generator) for _ in range(L))
        self.register_buffer("norm", torch.rand(D, generator=generator) + 0.5)
        self.register_buffer("inner_norm", torch.rand(D, generator=generator) + 0.5)
        self.register_buffer("head", ternary(V, D, generator))
        self.register_buffer("head_scale", torch.rand(1, generator=generator))

    def forward(self, ids: Tensor) -> Tensor:
        x = mm.embedding(ids, self.table)
        for layer in self.layers:
            x = layer(x)
        a = mm.norm_quant(x, self.norm, 1e-6, [self.inner_norm], 1e-6, 1e-5)
        out: Tensor = mm.ternary_linear(a[0], a[1], self.head, self.head_scale, None)
        return out


class SmallLM(nn.Module):
    """As TinyLM, with little between the products: compiles in a fraction of its time."""

    def __init__(self, V: int = 37, D: int = 24, inner: int = 40, L: int = 2) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(6)
        self.register_buffer("table", torch.randn(V, D, generator=generator))
        self.register_buffer("head", ternary(V, D, generator))
        self.register_buffer("one", torch.ones(1))
        self.layers = nn.ModuleList(nn.Module() for _ in range(L))
        for layer in self.layers:
            layer.register_buffer("into", ternary(inner, D, generator))
            layer.register_buffer("out", ternary(D, inner, generator))

    def forward(self, ids: Tensor) -> Tensor:
        x = mm.embedding(ids, self.table)
        for layer in self.layers:
            c = mm.ternary_linear(*mm.quantize(x, 1e-5), layer.into, self.one, None)
            h = mm.mlgru_scan(c, mm.sigmoid(c))
            x = mm.add(x, mm.ternary_linear(*mm.quantize(h, 1e-5), layer.out, self.one, None))
        out: Tensor = mm.ternary_linear(*mm.quantize(x, 1e-5), self.head, self.one, None)
        return out
