"""`fallback="eager"`: whatever torch runs gives the module's own results."""

from __future__ import annotations

import copy
import operator
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import mmfree_compiler as mmf
from mmfree_compiler.fallback import EagerModel
from mmfree_compiler.models import BitLinear

WIDTH = 16
Forward = Callable[["Layers", Tensor], Any]


class Layers(nn.Module):
    """Four BitLinears and counters of several kinds, for a function to compute with."""

    counter: Tensor

    def __init__(self, compute: Forward) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c, self.d = (BitLinear(WIDTH, WIDTH) for _ in range(4))
        self.norm = nn.LayerNorm(WIDTH)
        self.register_buffer("counter", torch.zeros(1))
        self.calls, self.plain, self.listed = 0, torch.ones(1), [torch.ones(1)]
        self.compute = compute

    def forward(self, x: Tensor) -> Any:
        return self.compute(self, x)


def attention(m: Layers, x: Tensor) -> Tensor:
    """Views of every kind; `contiguous` is what makes the last one possible."""
    batch, time, _ = x.shape
    q, k, v = (part(x).view(batch, time, 2, -1).transpose(1, 2) for part in (m.a, m.b, m.c))
    mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).contiguous()
    out: Tensor = m.d(mixed.view(batch, time, -1)) + x
    return out


def write_into_a_view(m: Layers, x: Tensor) -> Tensor:
    y: Tensor = m.a(x)
    y.view(-1)[0] = 5
    return y


# Each is cut into parts.
PARTED: dict[str, Forward] = {
    "codes that two parts read": lambda m, x: m.c(F.gelu(m.a(x)) * m.b(x)),
    "codes that four parts read": lambda m, x: m.a(x).sin() + m.b(x).cos() * m.c(x).exp() + m.d(x),
    "attention": attention,
    "a write into a view": write_into_a_view,
    "all supported": lambda m, x: m.b(F.silu(m.a(x))),
    "nothing supported": lambda _, x: x.cumsum(-1).sin(),
    "one op alone": lambda _, x: F.silu(x.cumsum(-1)).sin(),
    "layer norm": lambda m, x: m.a(m.norm(x)) + m.norm(x),
    "one row for all": lambda m, x: m.a(x) * x.mean(1, keepdim=True),
    "one number for a row": lambda m, x: m.a(x) * m.b(x).mean(-1, keepdim=True),
    "rows by their position": lambda m, x: m.a(x) * torch.arange(x.shape[1]).float()[:, None],
    "rolled in time": lambda m, x: m.b(torch.roll(m.a(x), 1, 1)),
    "selected by values": lambda m, x: m.a(x)[m.a(x) > 0],
    "integers and flags": lambda m, x: (m.a(x).argmax(-1), m.a(x) > 0, x.shape[0], 3, None),
    "a dict": lambda m, x: {"rows": m.a(x), "others": [m.b(x), (m.c(x).sin(),)]},
    "double": lambda m, x: m.a(x).double() * 2 + x.double(),
    "half": lambda m, x: m.a(x).half() * 2,
    "bfloat16": lambda m, x: m.a(x).bfloat16() + 1,
    "complex": lambda m, x: torch.complex(m.a(x), x).conj().imag,
    "its input": lambda m, x: (x, m.a(x), x.clone()),
    "one value twice": lambda m, x: operator.itemgetter(0, 0)([m.a(x)]),
}


def through_numpy(m: Layers, x: Tensor) -> Tensor:
    out: Tensor = m.a(x) + torch.from_numpy(x.numpy() * 2)
    return out


def in_bfloat16(m: Layers, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return F.linear(m.b(m.a(x)), m.c.weight)


# Each runs in torch as a whole.
WHOLE: dict[str, Forward] = {
    "a buffer that changes": lambda m, x: m.a(x) * m.counter.add_(1),
    "a branch on values": lambda m, x: m.a(x) if x.sum() > 0 else m.b(x),
    "a loop over time": lambda m, x: torch.stack([m.a(row) for row in x.unbind(1)], 1),
    "numpy": through_numpy,
    "strides": lambda m, x: m.a(x).transpose(0, 1).contiguous().as_strided((1, WIDTH), (WIDTH, 1)),
}


# Whether these are cut depends on what tracing can prove.
EITHER: dict[str, Forward] = {
    "a number from a value": lambda m, x: m.a(x) * x.max().item(),
    "autocast": in_bfloat16,
    "a view of a transposed value": lambda m, x: (
        m.a(x).transpose(0, 1).contiguous().view(-1, WIDTH)
    ),
    "a layer on transposed rows": lambda m, x: m.a(x.transpose(0, 1)).transpose(0, 1),
}


def rows(*leading: int, scale: float = 1, seed: int = 1) -> Tensor:
    return torch.randn(*leading, WIDTH, generator=torch.Generator().manual_seed(seed)) * scale


def compiled(compute: Forward) -> tuple[EagerModel, Layers]:
    """The compiled module, and another one that has not been called."""
    module = Layers(compute).eval()
    untouched = copy.deepcopy(module)
    model = mmf.compile(module, "reference", example_inputs=(rows(2, 3),), fallback="eager")
    module.load_state_dict(untouched.state_dict())
    module.calls = 0
    return model, untouched


def assert_same(found: Any, expected: Any) -> None:
    """Equal structures of equal values, but for rows where a code sat on a rounding edge."""
    (new, kinds), (old, expected_kinds) = map(pytree.tree_flatten, (found, expected))
    assert kinds == expected_kinds
    for x, y in zip(new, old, strict=True):
        if not isinstance(y, Tensor):
            assert x == y
        elif not y.is_floating_point():
            assert (x.dtype, x.shape) == (y.dtype, y.shape)
            assert not y.numel() or (x == y).float().mean() > 0.9
        else:
            bound = 2e-2 * float(y.abs().max()) if y.numel() else 0
            torch.testing.assert_close(x, y, rtol=0, atol=bound)


@torch.no_grad()
def assert_equals_module(model: EagerModel, module: Layers) -> None:
    """At sizes and magnitudes that compiling did not see, and at every call."""
    for scale, leading in ((1, (2, 3)), (1, (2, 3)), (1, (1, 1)), (9, (7, 2)), (0.1, (1, 6))):
        x, same = (rows(*leading, scale=scale) for _ in range(2))
        expected = module(same)
        assert_same(model(x), expected)
        assert torch.equal(x, same)  # also where the module writes into it


@pytest.mark.parametrize("name", PARTED)
def test_what_is_cut_into_parts(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model, module = compiled(PARTED[name])
    assert model.parted is not None
    assert_equals_module(model, module)
    if name not in ("attention", "a write into a view"):
        assert_same(model(rows(0, 3)), module(rows(0, 3)))


@pytest.mark.parametrize("name", WHOLE)
def test_what_runs_in_torch_as_a_whole(name: str) -> None:
    with pytest.warns(UserWarning, match="Layers runs in torch as a whole") as caught:
        model, module = compiled(WHOLE[name])
    assert caught[-1].filename == __file__
    assert model.parted is None
    assert "Layers  in torch as a whole" in model.explain().text(notes=True)
    assert_equals_module(model, module)


@pytest.mark.filterwarnings("ignore:Layers runs in torch")
@pytest.mark.parametrize("name", EITHER)
def test_what_may_be_cut_into_parts(name: str) -> None:
    assert_equals_module(*compiled(EITHER[name]))


@pytest.mark.filterwarnings("ignore:TransformerEncoderLayer runs in torch")
def test_a_transformer_layer() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 32, batch_first=True).eval()
    model = mmf.compile(layer, "reference", example_inputs=(rows(2, 3),), fallback="eager")
    with torch.no_grad():
        assert_same(model(rows(3, 5)), layer(rows(3, 5)))


@torch.no_grad()
def test_inputs_unlike_the_examples() -> None:
    """They go to the module itself: other dtypes, ranks and names, no rows at all."""
    model, module = compiled(lambda m, x: torch.sin(m.a(x.float())) + x)
    x = rows(2, 3)
    for other in (x[0], x.double(), x.bfloat16(), x[:0], x[:, :0], x[None]):
        assert_same(model(other), module(other))
    assert_same(model(x=x), module(x))
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        model()


@torch.no_grad()
def test_results_are_of_no_input() -> None:
    """A pass drops `clone`; what the caller writes into the result changes no input."""
    model, _ = compiled(lambda m, x: (x.clone(), m.a(x)))
    x = rows(2, 3)
    model(x)[0].zero_()
    assert torch.equal(x, rows(2, 3))


@torch.no_grad()
def test_a_part_that_cannot_be_compiled_stays_in_torch() -> None:
    """The rows of one input would have to be repeated for those of another."""

    def compute(m: Layers, x: Tensor) -> Any:
        return torch.cat([m.a(x), m.b(x[:, :1])], 1)

    model, module = compiled(compute)
    assert_equals_module(model, module)


def test_several_inputs() -> None:
    class Masked(Layers):
        def forward(self, x: Tensor, mask: Tensor) -> Any:  # type: ignore[override]
            return self.a(x).masked_fill(mask, 0)

    module = Masked(operator.add).eval()
    inputs = rows(2, 3), rows(2, 3) > 0
    with pytest.warns(UserWarning, match="for some sizes only"):  # masks as wide as rows
        model = mmf.compile(module, "reference", example_inputs=inputs, fallback="eager")
    with torch.no_grad():
        assert torch.equal(model(*inputs), module(*inputs))


@torch.no_grad()
@pytest.mark.parametrize("sizes", [((2, 3), (2, 3)), ((2, 3), (2, 1)), ((1, 1), (2, 3))])
def test_inputs_that_had_one_size(sizes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    """The graph was traced for equal sizes; other ones go to the module, which repeats rows."""

    class Pair(Layers):
        def forward(self, x: Tensor, y: Tensor) -> Any:  # type: ignore[override]
            return torch.sin(self.a(x) + self.b(y)) * (2 if x.shape == y.shape else 1)

    module = Pair(operator.add).eval()
    inputs = rows(2, 3), rows(2, 3, seed=2)
    model = mmf.compile(module, "reference", example_inputs=inputs, fallback="eager")
    others = rows(*sizes[0]), rows(*sizes[1], seed=2)
    assert_same(model(*others), module(*others))


def freed() -> Tensor:
    """A tensor whose memory was given back."""
    tensor = torch.ones(3)
    tensor.untyped_storage().resize_(0)
    return tensor


@pytest.mark.parametrize(
    "held", [torch.ones(3, device="meta"), torch.eye(3).to_sparse(), freed(), torch.empty(0)]
)
def test_tensors_that_cannot_be_copied_are_left(held: Tensor) -> None:
    module = Layers(lambda m, x: m.a(x)).eval()
    module.plain = held
    compiled = mmf.compile(module, "reference", example_inputs=(rows(2, 3),))
    assert compiled(rows(2, 3)).shape == rows(2, 3).shape
    assert module.plain is held


def count_calls(m: Layers, x: Tensor) -> Tensor:
    m.calls += 1
    out: Tensor = m.a(x) * m.calls * m.counter.add_(1)
    return out


def count_in_tensors(m: Layers, x: Tensor) -> Tensor:
    """Neither is a buffer."""
    out: Tensor = m.a(x) * m.plain.add_(1) * m.listed[0].mul_(2)
    return out


@torch.no_grad()
@pytest.mark.parametrize("function", [count_calls, count_in_tensors])
def test_compiling_leaves_the_module_as_it_was(function: Callable[..., Tensor]) -> None:
    """Its first call afterwards is its first call."""
    module = Layers(function).eval()
    untouched = copy.deepcopy(module)
    with pytest.warns(UserWarning, match="Layers runs in torch as a whole"):
        model = mmf.compile(module, "reference", example_inputs=(rows(2, 3),), fallback="eager")
    for _ in range(3):
        assert torch.equal(model(rows(2, 3)), untouched(rows(2, 3)))
