"""Arrays whose own methods raise or lie: an InputError that names the argument, never a crash."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import fake_device
import numpy as np
import pytest
from fake_device import DeviceArray, device_lm, device_module
from fake_launcher import WIDTH, lm_session, module_session

from mmfree_compiler.errors import InputError
from mmfree_compiler.runtime.dlpack import tensor_of

IDS = np.arange(10).reshape(2, 5)
X = np.ones((2, WIDTH), np.float32)
ERRORS = (AssertionError, AttributeError, OSError, StopIteration, MemoryError, KeyError, ValueError)


def numbers(*values: int) -> Any:
    """A pointer to int64."""
    return ctypes.cast((ctypes.c_int64 * len(values))(*values), ctypes.POINTER(ctypes.c_int64))


# A field of the capsule, what it has instead of the right value, and what the message says.
FIELDS: list[tuple[str, Any, str]] = [
    ("data", None, "at the address 0, where no int64 can be"),
    ("byte_offset", 4, "at the address .*, where no int64 can be"),
    ("device", (2, 1), "CUDA device 0, its capsule 10 numbers of int64 on CUDA device 1"),
    ("device", (1, 0), "its capsule 10 numbers of int64 on the host"),
    ("ndim", 2, "has 2 dimensions, not 1"),
    ("ndim", 0, "has 0 dimensions, not 1"),
    ("ndim", -1, "has -1 dimensions, not 1"),
    ("shape", numbers(3), "is 10 numbers of int64 .* its capsule 3 numbers"),
    ("shape", numbers(1 << 40), "its capsule 1,099,511,627,776 numbers"),
    ("shape", numbers(-10), "its capsule -10 numbers"),
    ("shape", None, "has 1 dimensions"),
    ("strides", numbers(2), "has strides of 2 numbers, not 1"),
    ("strides", numbers(0), "has strides of 0 numbers, not 1"),
    ("bits", 32, "is 10 numbers of int64 .* its capsule 10 numbers of int32"),
    ("bits", 12, "a dtype of code 0, 12 bits and 1 lanes"),
    ("code", 2, "its capsule 10 numbers of float64"),
    ("code", 4, "a dtype of code 4, 64 bits and 1 lanes"),
    ("lanes", 2, "a dtype of code 0, 64 bits and 2 lanes"),
]


@pytest.mark.parametrize(("name", "value", "message"), FIELDS)
def test_a_capsule_that_lies(
    name: str, value: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lying(DeviceArray):
        def __dlpack__(self, *, stream: int | None = None) -> Any:
            capsule = super().__dlpack__(stream=stream)
            setattr(tensor_of(capsule), name, value)
            return capsule

    monkeypatch.setattr(fake_device, "ravel", lambda x: Lying(x.values.ravel()))
    with pytest.raises(InputError, match=f"^tokens: .*{message}"):
        device_lm()(DeviceArray(IDS))


def test_strides_of_one_number_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    class One(DeviceArray):
        def __dlpack__(self, *, stream: int | None = None) -> Any:
            capsule = super().__dlpack__(stream=stream)
            tensor_of(capsule).strides = numbers(99)
            return capsule

    monkeypatch.setattr(fake_device, "ravel", lambda x: One(x.values.ravel()))
    logits, _ = device_lm()(DeviceArray(IDS[:1, :1]))
    assert np.array_equal(logits.values, lm_session()(IDS[:1, :1])[0])


def named_otherwise() -> Any:
    create = ctypes.pythonapi.PyCapsule_New
    create.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    create.restype = ctypes.py_object
    return create(id(IDS), b"another", None)


@pytest.mark.parametrize("given", [None, 7, "text", named_otherwise()])
def test_what_is_not_a_capsule(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Without(DeviceArray):
        def __dlpack__(self, **_: Any) -> Any:
            return given

    monkeypatch.setattr(fake_device, "ravel", lambda x: Without(x.values.ravel()))
    with pytest.raises(InputError, match=r"^tokens: .*gives no capsule of the name dltensor"):
        device_lm()(DeviceArray(IDS))


SHAPES = ["ab", [2, 5], None, (-2, -5), (2, 6), (2.0, 5.0), (1 << 70, 5), ("a", "b"), (1,) * 99]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_that_is_none(shape: Any) -> None:
    shaped: Any = type("Shaped", (DeviceArray,), {"shape": property(lambda _: shape)})
    with pytest.raises(InputError, match=r"^tokens: "):
        device_lm()(shaped(IDS))


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("asarray", lambda x, **_: x),
        ("zeros", lambda shape, **_: DeviceArray(np.zeros(shape))),
    ],
)
def test_a_library_that_makes_other_dtypes(
    name: str, made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_device, name, made)
    with pytest.raises(InputError, match=r"^x: .* makes float64 instead of float32"):
        device_module()(DeviceArray(X.astype(np.float64)))


CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "tokens": lambda session, x: session(x),
    "tokens of advance": lambda session, x: session.advance(x, session.zero_state(2)),
    "mask": lambda session, x: session(IDS, mask=x),
    "prompt": lambda session, x: session.encode(x),
    "prompt of prefill": lambda session, x: session.prefill(x),
    "prompt of generate": lambda session, x: session.generate(x),
    "stop_tokens": lambda session, x: session.generate([1], stop_tokens=x),
}
# Where something raises, on which class.
PARTS = {
    "__dlpack_device__": (np.ndarray, DeviceArray),
    "__getattr__": (object,),
    "__getattribute__": (object, DeviceArray),
    "__array__": (object,),
    "__dlpack__": (DeviceArray,),
    "shape": (DeviceArray,),
    "dtype": (DeviceArray,),
    "device": (DeviceArray,),
}


def raising(part: str, base: type, error: type[BaseException]) -> Any:
    """An array of a class derived from `base` of which one part raises."""

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    found = fail if part.startswith("__") else property(fail)
    made: Any = type("Raising", (base,), {part: found})
    if base is np.ndarray:
        return IDS.view(made)
    return made() if base is object else made(IDS)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("session", [lm_session, device_lm])
def test_arrays_that_raise(
    call: str, session: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_device, "ravel", lambda x: x)
    opened = session()
    for part, bases in PARTS.items():
        for base in bases:
            for error in ERRORS:
                with pytest.raises(InputError, match=f"^{call.partition(' ')[0]}: "):
                    CALLS[call](opened, raising(part, base, error))


def test_an_error_without_a_text_is_named() -> None:
    with pytest.raises(InputError, match="cannot be read as an array: AssertionError"):
        lm_session()(raising("__dlpack_device__", np.ndarray, AssertionError))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("session", [lm_session, device_lm])
def test_an_interrupt_is_no_error_of_the_array(session: Any, error: type[BaseException]) -> None:
    with pytest.raises(error):
        session()(raising("__dlpack_device__", np.ndarray, error))


@pytest.mark.parametrize("session", [module_session, device_module])
def test_inputs_of_a_module_that_raise(session: Any) -> None:
    for part, bases in PARTS.items():
        for base in bases:
            with pytest.raises(InputError, match=r"^x: "):
                session()(raising(part, base, OSError))
