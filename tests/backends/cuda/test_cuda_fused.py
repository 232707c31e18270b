"""Kernels that make rows and columns of one token at once: which stages, and what they become."""

from __future__ import annotations

import pytest
import torch
from op_modules import TinyLM, mm, ternary
from test_cuda_schedule import parts_of_one_token, program_of
from torch import Tensor, nn
from triton_process import native

from mmfree_compiler.backends.cuda.archs import ARCHS
from mmfree_compiler.backends.cuda.compile.fused import block_of, cut, tile_words
from mmfree_compiler.backends.cuda.compile.shapes import Shape


def kinds(module: nn.Module, *inputs: Tensor) -> list[str]:
    return [part.kind for part in parts_of_one_token(program_of(module, *inputs))]


def test_each_stage_of_a_layer_is_one_kernel() -> None:
    found = kinds(TinyLM(L=2), torch.zeros(2, 3, dtype=torch.int64))
    assert found == ["tiles", *["fused"] * 4, "fused"]


class _Product(nn.Module):
    """Products of the codes of a norm; what else happens to it is up to `after`."""

    def __init__(self, n: int = 40, k: int = 24) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight, self.scale = ternary(n, k, generator), torch.tensor([0.5])
        self.norm = torch.ones(k)

    def forward(self, x: Tensor) -> list[Tensor]:
        normed = mm.rms_norm(x, self.norm, 1e-6)
        codes, scale = mm.quantize(normed, 1e-5)
        return self.after(x, normed, mm.ternary_linear(codes, scale, self.weight, self.scale, None))

    def after(self, x: Tensor, normed: Tensor, product: Tensor) -> list[Tensor]:  # noqa: ARG002
        return [product]


class _NormIsAnOutput(_Product):
    def after(self, x: Tensor, normed: Tensor, product: Tensor) -> list[Tensor]:  # noqa: ARG002
        return [normed, product]


class _NormIsAdded(_Product):
    def after(self, x: Tensor, normed: Tensor, product: Tensor) -> list[Tensor]:  # noqa: ARG002
        return [mm.add(normed, product)]


ROW = torch.randn(1, 24)


def test_a_product_of_its_own_rows_is_fused() -> None:
    assert kinds(_Product(), ROW) == ["fused"]


@pytest.mark.parametrize("module", [_NormIsAnOutput(), _NormIsAdded(24)])
def test_rows_that_others_read_are_made_once(module: nn.Module) -> None:
    assert "fused" not in kinds(module, ROW)


@pytest.mark.parametrize(("n", "k"), [(20000, 24), (8, 8208)])
def test_large_stages_have_two_kernels(n: int, k: int) -> None:
    assert kinds(_Product(n, k), torch.randn(1, k)) == ["rows", "tiles"]


@pytest.mark.parametrize("columns", range(1, 70))
def test_pieces_hold_all_columns(columns: int) -> None:
    pieces = list(cut(columns))
    ends = [first + size for first, size in pieces]
    assert [first for first, _ in pieces] == [0, *ends[:-1]]
    assert ends[-2] < columns <= ends[-1] if len(ends) > 1 else columns <= ends[-1]
    assert all(size >= 8 and not size & (size - 1) for _, size in pieces)
    block = block_of(Shape(1, columns, 8))
    assert block >= max(32, ends[-1])
    assert not block & (block - 1)


@pytest.mark.parametrize(
    ("k", "words"), [(24, 16), (1024, 64), (2048, 128), (2560, 32), (2816, 64), (5632, 128)]
)
def test_tiles_of_words_leave_few_unused(k: int, words: int) -> None:
    assert tile_words(k) == words


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_120"])
def test_kernels_of_a_model_compile(arch: str) -> None:
    """Without spills; from Hopper on they wait for the kernel in front themselves."""
    found = native("fused_kernels.compiled", arch)
    # A layer has four, the head is one; each as rows alone too; and a scan. In prompts, others make
    # the head, and what follows the last recurrence, of tokens whose outputs are wanted.
    assert len(found) == 11 + 4
    assert all(waits == (arch != "sm_80") for waits, _ in found)
    assert [spilled for _, spilled in found] == [0] * len(found)


@pytest.mark.parametrize("arch", ["sm_80", "sm_86", "sm_90"])
def test_kernels_fit_into_shared_memory(arch: str) -> None:
    """Where they do not as they are for Hopper, they load less ahead."""
    (found,) = native("fused_kernels.shared_bytes", arch)
    assert found <= ARCHS[arch].shared
    assert (found > ARCHS["sm_80"].shared) == (arch == "sm_90")


def test_kernels_of_many_norms_compile() -> None:
    """More rows than one reduction takes."""
    assert native("fused_kernels.of_many_norms", 7) == ["stage0_fused_1x8", "stage0_rows_1x1"]
