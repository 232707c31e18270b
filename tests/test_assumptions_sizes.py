"""Sizes: what is traced holds for every batch and time, 1 included, or the module is refused."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfree_compiler.errors import InputError, TraceError
from mmfree_compiler.trace import trace

WIDTH = 8
EYE = torch.eye(WIDTH) * 2


class _Does(nn.Module):
    def __init__(self, computes: Callable[..., Tensor]) -> None:
        super().__init__()
        self.computes = computes

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.computes(*inputs)


def _asserted(y: Tensor) -> Tensor:
    assert y.shape[1] < 9
    return y * 2


def _checked(y: Tensor) -> Tensor:
    torch._check(y.shape[1] < 8)  # type: ignore[no-untyped-call]
    return y * 2


DECIDES: dict[str, Callable[[Tensor], Tensor]] = {
    "size 1": lambda y: y * 2 if y.shape[1] == 1 else y,
    "not size 1": lambda y: y * 2 if y.shape[0] != 1 else y,
    "truth": lambda y: y * 2 if y.shape[1] - 1 else y,
    "more than 1": lambda y: y * 2 if y.shape[0] > 1 else y,
    "more than 4": lambda y: y * 2 if y.shape[0] > 4 else y,
    "remainder": lambda y: y * 2 if y.shape[1] % 2 else y,
    "product": lambda y: y * 2 if y.shape[0] * y.shape[1] == 1 else y,
    "equal sizes": lambda y: y * 2 if y.shape[0] == y.shape[1] else y,
    "any": lambda y: y * 2 if any(size == 1 for size in y.shape) else y,
    "in": lambda y: y * 2 if y.shape[1] in (1, 2) else y,
    "shape": lambda y: y * 2 if y.shape == torch.Size([2, 3, WIDTH]) else y,
    "list": lambda y: y * 2 if list(y.shape) == [1, 1, WIDTH] else y,
    "numel": lambda y: y * 2 if y.numel() > 100 else y,
    "length": lambda y: y * 2 if len(y) == 1 else y,
    "length as a number": lambda y: y * len(y),
    "stride": lambda y: y * 2 if y.stride(0) > 30 else y,
    "part": lambda y: y * 2 if y[:, 1:].numel() else y,
    "flattened": lambda y: y * 2 if y.flatten(0, 1).shape[0] == 1 else y,
    "loop": lambda y: sum((y * (k + 1) for k in range(y.shape[1])), y),
    "comprehension": lambda y: torch.stack([y[:, k] * 2 for k in range(y.shape[1])], 1),
    "unbind": lambda y: torch.stack([part * 2 for part in y.unbind(1)], 1),
    "iteration": lambda y: torch.stack([part * 2 for part in y]),
    "split": lambda y: torch.cat(torch.split(y, 2, 1), 1),
    "chunk": lambda y: torch.cat(y.chunk(2, 1), 1),
    "int": lambda y: y * int(y.shape[1]),
    "float": lambda y: y * float(y.shape[1]),
    "math": lambda y: y * math.sqrt(y.shape[1]),
    "sorted": lambda y: y * sorted(y.shape)[0],
    "dict": lambda y: y * {1: 2}.get(y.shape[1], 1),
    "assert": _asserted,
    "torch._check": _checked,
    "a constant's size": lambda y: y + torch.ones(3, WIDTH),
    "expand": lambda y: y.expand(2, 3, WIDTH) * 2,
    "view": lambda y: y.view(2, -1, WIDTH) * 2,
    "contiguous": lambda y: y * 2 if y.transpose(0, 1).is_contiguous() else y,
    "squeeze": lambda y: y.squeeze(1) * 2,
    "squeeze in place": lambda y: (y * 2).squeeze_(0),
    "squeeze dims": lambda y: y.squeeze((0, 1)) * 2,
    "squeeze all": lambda y: y.squeeze() * 2,
    "squeeze twice": lambda y: y.unsqueeze(1).squeeze() * 2,
}


@pytest.mark.parametrize("name", DECIDES)
@pytest.mark.parametrize("shape", [(2, 3), (1, 1)], ids=str)
def test_a_decision_is_refused_with_its_line(name: str, shape: tuple[int, int]) -> None:
    cannot_run = name == "view" and shape == (1, 1)
    with pytest.raises(InputError if cannot_run else TraceError, match=rf"{__name__}.py:\d+: \S"):
        trace(_Does(DECIDES[name]), (torch.randn(*shape, WIDTH),))


def _written(y: Tensor) -> Tensor:
    z = y * 1
    z.transpose(0, 1).reshape(-1, WIDTH).add_(1)  # a copy, but for sizes of 1
    return z


def test_strides_matter_where_something_is_written() -> None:
    with pytest.raises(TraceError, match=r"traced where inputs\[0\].shape\[0\] != 1"):
        trace(_Does(_written), (torch.randn(2, 3, WIDTH),))


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TraceError, match=r"y\.sum"):
        trace(_Does(lambda y: y if y.sum() > 0 else -y), (torch.randn(2, 3, WIDTH),))
    assert capfd.readouterr().err == ""


def test_the_message_says_what_was_traced() -> None:
    with pytest.raises(TraceError) as refused:
        trace(_Does(DECIDES["size 1"]), (torch.randn(1, 1, WIDTH),))
    assert refused.value.thing.endswith("y * 2 if y.shape[1] == 1 else y,")
    assert refused.value.cause.endswith("traced where inputs[0].shape[1] != 1")


class _Repeated(nn.Module):
    def forward(self, y: Tensor) -> Tensor:
        return y * 2 if y.shape[1] == 1 else y


def test_a_decision_in_repeated_layers_is_refused() -> None:
    with pytest.raises(TraceError, match=r"return y \* 2 if y.shape\[1\] == 1"):
        trace(nn.Sequential(_Repeated(), _Repeated()), (torch.randn(2, 3, WIDTH),))


FOLLOWS: dict[str, Callable[[Tensor], Tensor]] = {
    "at least 1": lambda y: y * 2 if y.shape[0] >= 1 else y,
    "not 0": lambda y: y * 2 if y.shape[1] else y,
    "slice": lambda y: y[:, :3] * 2,
    "rest": lambda y: y[:, 1:] * 2,
    "last": lambda y: y[:, -1:] * 2,
    "last row": lambda y: y[:, -1] * 2,
    "shift": lambda y: F.pad(y, (0, 0, 1, 0))[:, :-1],
    "double": lambda y: torch.cat([y, y], 1)[:, : y.shape[1]],
    "size as a number": lambda y: y * y.shape[1] / y.shape[0] + y.numel(),
    "smaller": lambda y: y * min(y.shape[1], 2) + max(y.shape[0], 4),
    "mean over time": lambda y: y - y.mean(1, keepdim=True),
    "heads": lambda y: y.view(y.shape[0], y.shape[1], 2, 4).amax(-1).repeat(1, 1, 4),
    "rows": lambda y: (y.reshape(-1, WIDTH) * 2).view(y.shape[0], -1, WIDTH),
    "flat": lambda y: y.flatten(0, 1).reshape(y.shape),
    "positions": lambda y: y + torch.arange(y.shape[1]).view(1, -1, 1),
    "first to all": lambda y: y + y[:, :1].expand(-1, y.shape[1], -1),
    "squeeze of a known 1": lambda y: y.unsqueeze(1).squeeze(1) * 2,
    "a layer on transposed rows": lambda y: F.linear(y.transpose(0, 1), EYE).transpose(0, 1),
    "a view of transposed rows": lambda y: y.transpose(0, 1).contiguous().view(-1, WIDTH),
    "heads moved": lambda y: y.unflatten(-1, (2, 4)).transpose(1, 2).contiguous().transpose(1, 2),  # type: ignore[no-untyped-call]
    "products of rows": lambda y: y @ y.transpose(1, 2) @ y,
    "transposed": lambda y: y.transpose(0, 1).transpose(0, 1) * 2,
}


@pytest.mark.parametrize("name", FOLLOWS)
def test_what_follows_the_sizes_is_right_at_every_size(name: str) -> None:
    module = _Does(FOLLOWS[name])
    gm = trace(module, (torch.randn(2, 3, WIDTH),))
    for sizes in ((1, 1), (1, 5), (4, 1), (3, 3), (2, 3)):
        x = torch.randn(*sizes, WIDTH)
        torch.testing.assert_close(gm(x), module(x), rtol=0, atol=0)


def test_inputs_share_batch_and_time() -> None:
    x, y = torch.randn(2, 3, WIDTH), torch.randn(2, 3, WIDTH)
    trace(_Does(lambda x, y: x + y), (x, y))
    with pytest.raises(TraceError, match=r"traced where inputs\[0\].shape\[1\] == inputs"):
        trace(_Does(lambda x, y: x + y.transpose(0, 1)), (x[:, :2], y[:, :2]))
