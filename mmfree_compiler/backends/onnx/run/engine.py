"""A session of ONNX Runtime with a model, in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.errors import ArtifactError, InputError, ToolchainError

Arrays = Mapping[str, NDArray[Any]]

# A graph's optimizations -> what ONNX Runtime calls them.
OPTIMIZATIONS = {
    "off": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
TESTED = "CPUExecutionProvider"  # whose bits were compared with those of other targets
_ERRORS_ONLY = 3  # of the levels of ONNX Runtime's log
# Constants are allocated one by one, not within an arena: products read them 5 % faster.
_APART = "session.use_device_allocator_for_initializers"
_STOPS = "session.force_spinning_stop"


@dataclass(frozen=True)
class Engine:
    """Runs a model. `providers` are those that it uses, in order of preference."""

    session: Any
    partly: Any  # options of a run that leaves out what no wanted output needs

    @property
    def providers(self) -> tuple[str, ...]:
        return tuple(self.session.get_providers())

    def run(self, inputs: Arrays, outputs: Sequence[str]) -> list[NDArray[Any]]:
        """The named outputs. Raises ToolchainError when ONNX Runtime fails."""
        with _failing():
            made: list[NDArray[Any]] = self.session.run(list(outputs), dict(inputs), self.partly)
        return made

    def prepared(self, inputs: Arrays) -> Callable[[], None]:
        """Makes all outputs of these inputs, again at each call, without copies of either.

        A call raises ToolchainError when ONNX Runtime fails.
        """
        binding = self.session.io_binding()
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        for output in self.session.get_outputs():
            binding.bind_output(output.name)

        def run() -> None:
            assert inputs  # which the binding has no references to
            with _failing():
                self.session.run_with_iobinding(binding)

        return run


def open_engine(
    model: NDArray[np.uint8],
    constants: tuple[str, NDArray[np.uint8]],
    threads: int,
    providers: Sequence[str],
    optimizations: str,
    waiting: bool = True,
) -> Engine:
    """An engine for the bytes of a `model`.

    `constants` are the name and the bytes of its external data, which are empty if it has none.
    With `waiting`, its threads are busy for some time after a run, so as to begin the next at once.
    Raises ToolchainError, InputError on a provider or a level of `optimizations` that is unknown.
    """
    ort = _onnxruntime()
    _check("optimizations", [optimizations], tuple(OPTIMIZATIONS))
    if isinstance(providers, str) or not isinstance(providers, Sequence):
        raise InputError(f"providers {providers!r}", "is not a list", f"Pass [{TESTED!r}]")
    _check("providers", providers, tuple(ort.get_available_providers()))
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = _ERRORS_ONLY
    level = OPTIMIZATIONS[optimizations]
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.add_session_config_entry(_APART, "1")
    options.add_session_config_entry(_STOPS, str(int(not waiting)))
    name, data = constants
    if data.size:
        options.add_external_initializers_from_files_in_memory([name], [data], [data.size])
    partly = ort.RunOptions()
    partly.only_execute_path_to_fetches = True
    try:
        session = ort.InferenceSession(model.tobytes(), options, providers=list(providers))
    except Exception as error:  # onnxruntime has one class for each status, with no base
        cause = f"is refused by ONNX Runtime: {_first_line(error)}"
        hint = "Upgrade onnxruntime, or compile for onnx:ms"
        raise ArtifactError("ONNX model", cause, hint) from error
    return Engine(session, partly)


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        cause = f"running for it fails: {error}"
        raise ToolchainError("target onnx", cause, "pip install 'mmfree-compiler[onnx]'") from error
    return onnxruntime


@contextmanager
def _failing() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # onnxruntime has one class for each status, with no base
        hint = "Upgrade onnxruntime"
        raise ToolchainError("ONNX Runtime", f"fails: {_first_line(error)}", hint) from error


def _check(option: str, found: Sequence[str], known: Sequence[str]) -> None:
    for word in found:
        if word not in known:
            raise InputError(f"{option} {word!r}", "is unknown here", f"Known: {', '.join(known)}")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
