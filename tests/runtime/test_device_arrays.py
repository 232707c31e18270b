"""Arrays of other libraries on a launcher's device: read and made there, in order, or refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import fake_device
import numpy as np
import pytest
import torch
from fake_device import CURRENT, STREAM, DeviceArray, device_lm, device_module, log
from fake_launcher import VOCAB, WIDTH, lm_session, module_session

from mmfree_compiler.errors import InputError
from mmfree_compiler.runtime import device_arrays
from mmfree_compiler.runtime.device_array import USED

IDS = np.random.default_rng(0).integers(0, VOCAB, (2, 5))
MASK = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
X = np.random.default_rng(1).standard_normal((2, 3, WIDTH)).astype(np.float32)


def refuse(*_: Any, **__: Any) -> None:
    raise AssertionError("the values pass through the host")


def test_logits_and_states_are_those_of_the_host() -> None:
    session, host = device_lm(), lm_session()
    logits, state = session(DeviceArray(IDS))
    expected, there = host(IDS)
    assert isinstance(logits, DeviceArray)
    assert np.array_equal(logits.values, expected)
    assert state.length == there.length
    logits = session.advance(DeviceArray(IDS[:, :1]), state)
    assert np.array_equal(logits.values, host.advance(IDS[:, :1], there))
    assert np.array_equal(state.part("h"), there.part("h"))


@pytest.mark.parametrize("place", [DeviceArray, np.asarray, torch.tensor])
def test_a_mask_may_be_anywhere(place: Callable[[Any], Any]) -> None:
    logits, state = device_lm()(DeviceArray(IDS), mask=place(MASK))
    expected, there = lm_session()(IDS, mask=MASK)
    assert np.array_equal(logits.values, expected)
    assert np.array_equal(state.part("h"), there.part("h"))


def test_what_is_on_the_host_stays_there(monkeypatch: pytest.MonkeyPatch) -> None:
    session = device_lm()
    monkeypatch.setattr(session.launcher, "run_there", refuse)
    logits, _ = session(torch.tensor(IDS), mask=DeviceArray(MASK))
    assert torch.equal(logits, torch.tensor(lm_session()(IDS, mask=MASK)[0]))


def test_a_prompt_may_be_on_the_device() -> None:
    assert device_lm().encode(DeviceArray(IDS[0])).tolist() == IDS[0].tolist()


@pytest.mark.parametrize(
    "x",
    [X, X.astype(np.float64), X[:, ::2, ::-1], X.transpose(1, 0, 2), X[0, 0], X * 0 + 3],
    ids=["rows", "float64", "strided", "transposed", "one row", "numbers"],
)
def test_rows_of_a_module(x: Any) -> None:
    y = device_module()(DeviceArray(x))
    assert y.values.dtype == np.float32
    assert np.array_equal(y.values, module_session()(x))


def test_several_inputs_and_outputs() -> None:
    options = {"inputs": ("a", "b"), "outputs": ("y", "z")}
    found = device_module(**options)(DeviceArray(X), DeviceArray(X[:, ::-1]))
    expected = module_session(**options)(X, X[:, ::-1])
    assert all(np.array_equal(a.values, b) for a, b in zip(found, expected, strict=True))


def test_the_launcher_waits_for_arrays_and_their_library_for_it() -> None:
    device_module()(DeviceArray(X))
    given, run, waits, passed = log[:-3], *log[-3:]
    assert set(given) == {f"array to stream {STREAM}"}
    assert len(given) == 2  # the input, and the memory of the output
    assert (run, waits, passed) == ("run", f"stream {CURRENT} waits", "array to stream -1")


def test_the_library_waits_after_a_run_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    session = device_module()
    monkeypatch.setattr(session.launcher, "run", refuse)
    with pytest.raises(AssertionError, match="host"):
        session(DeviceArray(X))
    assert log[-2] == f"stream {CURRENT} waits"


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "another device": (
        lambda: device_lm()(DeviceArray(IDS, 1)),
        "is on CUDA device 1, the model",
    ),
    "outside": (lambda: device_lm()(DeviceArray(IDS + VOCAB)), "id [0-9]+ at .*is outside the voc"),
    "floats": (lambda: device_lm()(DeviceArray(X[..., 0])), "has dtype float32"),
    "shape": (lambda: device_lm()(DeviceArray(IDS[0])), r"has shape \(5,\)"),
    "0-d": (lambda: device_lm()(DeviceArray(IDS[0, 0])), r"has shape \(\)"),
    "empty": (lambda: device_module()(DeviceArray(X[:0])), "is empty"),
    "text": (lambda: device_module()(DeviceArray(["a"])), "DLPack only supports"),
    "mask": (lambda: device_lm()(IDS, mask=DeviceArray(1 - MASK)), "row 0 has padding after"),
    "partly": (
        lambda: device_module(inputs=("a", "b"))(DeviceArray(X), X),
        "partly on the device of the model",
    ),
    "a launcher of the host": (lambda: lm_session()(DeviceArray(IDS)), "it is on the device"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    call, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (13, r"CUDA device 0 \(managed memory\)"),
        (4, "OpenCL device 0"),
        (99, "device 0 of DLPack's type 99"),
    ],
)
def test_another_kind_of_device_is_named(kind: int, name: str) -> None:
    class Elsewhere(DeviceArray):
        def __dlpack_device__(self) -> tuple[int, int]:
            return kind, 0

    message = f"tokens: is on {name}, the model on CUDA device 0. Copy it there$"
    with pytest.raises(InputError, match=message):
        device_lm()(Elsewhere(IDS))


@pytest.mark.parametrize("name", ["from_dlpack", "ravel", "int64"])
def test_a_library_without_what_is_used(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(fake_device, name)
    with pytest.raises(InputError, match=f"DeviceArray is of no library with .*{name}"):
        device_lm()(DeviceArray(IDS))


def test_a_class_of_no_module_is_of_the_library_that_it_is_derived_from() -> None:
    made: Any = type("Derived", (DeviceArray,), {"__module__": None})
    logits, _ = device_lm()(made(IDS))
    assert np.array_equal(logits.values, lm_session()(IDS)[0])


TENSORS = {
    "plain": torch.tensor(X),
    "bfloat16": torch.tensor(X).bfloat16(),
    "transposed": torch.tensor(X).transpose(0, 1),
    "expanded": torch.tensor(X)[:1].expand(4, 3, WIDTH),
    "with a gradient": torch.tensor(X).requires_grad_(),
    "negated lazily": torch.complex(torch.tensor(X), torch.tensor(X)).conj().imag,
    "int32": torch.full((2, WIDTH), 3, dtype=torch.int32),
}


class Subclass(torch.Tensor):
    """Of a script that has all functions of a library, such as one that imports them."""

    __module__ = "script"


TENSORS["a subclass"] = torch.tensor(X).as_subclass(Subclass)
SCRIPT: Any = SimpleNamespace(**dict.fromkeys(USED, refuse))


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_of_torch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's CPU stands for a device."""
    session = device_module()
    monkeypatch.setattr(device_arrays, "HOST", ())
    monkeypatch.setattr(session.launcher, "device", (1, 0))
    monkeypatch.setattr(session.launcher, "stream", -1)
    monkeypatch.setitem(sys.modules, "script", SCRIPT)
    found = session(TENSORS[name])
    assert "run" in log
    on_the_host = TENSORS[name].detach().float().resolve_neg().numpy()
    assert torch.equal(found, torch.tensor(module_session()(on_the_host)))
