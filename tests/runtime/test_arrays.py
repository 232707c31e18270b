"""What a call takes: every spelling of an array gives its values, or a clear error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from fake_launcher import WIDTH, module_session
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.masked import masked_tensor

from mmfree_compiler.errors import InputError
from mmfree_compiler.runtime.arrays import to_numpy


def values(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


class Subclass(torch.Tensor):
    """As libraries derive one to hang attributes on tensors."""

    def __dlpack__(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("the tensor is read as torch has it")


X = values(2, WIDTH)
COMPLEX = torch.complex(values(2, WIDTH), X)
BIG_ENDIAN = X.numpy().astype(">f4")
READ_ONLY = X.numpy().copy()
READ_ONLY.flags.writeable = False

# An input, and the values that it stands for.
TAKEN: dict[str, tuple[Any, Any]] = {
    "negated lazily": (COMPLEX.conj().imag, -X),
    "a part of complex numbers": (COMPLEX.imag, X),
    "bfloat16": (X.bfloat16(), X.bfloat16().float()),
    "half": (X.half(), X.half().float()),
    "float8": (X.to(torch.float8_e4m3fn), X.to(torch.float8_e4m3fn).float()),
    "double": (X.double(), X),
    "int32": (torch.full((2, WIDTH), 3, dtype=torch.int32), torch.full((2, WIDTH), 3.0)),
    "uint8": (torch.full((2, WIDTH), 200, dtype=torch.uint8), torch.full((2, WIDTH), 200.0)),
    "with a gradient": (X.clone().requires_grad_(), X),
    "of a graph": (X.clone().requires_grad_() * 2, X * 2),
    "a parameter": (torch.nn.Parameter(X), X),
    "a subclass": (X.as_subclass(Subclass), X),
    "transposed": (values(WIDTH, 2).t(), values(WIDTH, 2).t()),
    "strided": (values(2, 2 * WIDTH)[:, ::2], values(2, 2 * WIDTH)[:, ::2]),
    "expanded": (X[:1].expand(3, WIDTH), X[:1].repeat(3, 1)),
    "of inference mode": (torch.inference_mode()(X.clone)(), X),
    "NumPy reversed": (X.numpy()[::-1, ::-1], X.flip(0, 1)),
    "NumPy of the other byte order": (BIG_ENDIAN, X),
    "NumPy read-only": (READ_ONLY, X),
    "NumPy in Fortran order": (np.asfortranarray(X.numpy()), X),
    "NumPy half": (X.numpy().astype(np.float16), X.half().float()),
    "lists": (X.tolist(), X),
    "NumPy scalars": ([list(row) for row in X.numpy()], X),
    "a list of tensors": (list(X), X),
    "nothing masked": (np.ma.masked_array(X.numpy()), X),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_taken(name: str) -> None:
    given, expected = TAKEN[name]
    found = module_session()(given)
    assert isinstance(found, Tensor) == isinstance(given, Tensor)
    zero = module_session()(torch.as_tensor(expected).float().contiguous())
    assert torch.equal(torch.as_tensor(found), zero)
    assert torch.as_tensor(found).dtype == torch.float32


def fake() -> Tensor:
    with FakeTensorMode():
        return torch.zeros(2, WIDTH)


def freed() -> Tensor:
    tensor = X.clone()
    tensor.untyped_storage().resize_(0)
    return tensor


REFUSED: dict[str, Callable[[], Any]] = {
    "fake": fake,
    "freed": freed,
    "zeros of autograd": lambda: torch._efficientzerotensor((2, WIDTH)),
    "masked": lambda: masked_tensor(X, X > 0),
    "meta": lambda: X.to("meta"),
    "sparse": X.to_sparse,
    "compressed": X.to_sparse_csr,
    "quantized": lambda: torch.quantize_per_tensor(X, 0.1, 0, torch.qint8),
    "nested": lambda: torch.nested.nested_tensor(list(X)),
    "complex": lambda: COMPLEX.conj(),
    "flags": lambda: X > 0,
    "no parameter yet": torch.nn.UninitializedParameter,
    "NumPy masked": lambda: np.ma.masked_array(X.numpy(), X.numpy() > 0),
    "NumPy objects": lambda: X.numpy().astype(object),
    "text": lambda: [["a"] * WIDTH],
    "ragged": lambda: [[1.0], [1.0, 2.0]],
    "nothing": lambda: None,
    "a set": lambda: {1.0},
    "0-d": lambda: torch.tensor(1.0),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    with pytest.raises(InputError):
        module_session()(REFUSED[name]())


def test_memory_is_shared() -> None:
    assert np.shares_memory(to_numpy(X, "x"), X.numpy())
    assert np.shares_memory(to_numpy(X.t(), "x"), X.numpy())
