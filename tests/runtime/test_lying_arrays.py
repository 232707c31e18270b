"""Arrays whose own methods raise: an InputError that names the argument, never a crash."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fake_device
import numpy as np
import pytest
from fake_device import DeviceArray, device_lm, device_module
from fake_launcher import WIDTH, lm_session, module_session

from mmfree_compiler.errors import InputError

IDS = np.arange(10).reshape(2, 5)
X = np.ones((2, WIDTH), np.float32)
ERRORS = (AssertionError, AttributeError, OSError, StopIteration, MemoryError, KeyError, ValueError)


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
    "__array__": (object,),
    "shape": (DeviceArray,),
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
