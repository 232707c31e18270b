"""Processes for tests that use Triton: one that interprets kernels, one that compiles them.

Which of the two Triton does is settled when it is imported, and torch imports it when it likes. So
no test imports Triton, or a module of kernels: it names a function there, and the process calls it.
"""

from __future__ import annotations

import importlib
import os
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from typing import Any


def _call(interpret: bool, name: str, *arguments: Any) -> Any:
    """The result of "module.function"; it and the arguments can be pickled."""
    return _process(interpret).submit(_found, name, *arguments).result()


interpreted = partial(_call, True)
native = partial(_call, False)


@cache
def _process(interpret: bool) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, get_context("spawn"), _prepare, (interpret,))


def _prepare(interpret: bool) -> None:
    os.environ["TRITON_INTERPRET"] = str(int(interpret))
    os.environ["TRITON_CACHE_DIR"] = os.path.join(os.environ["XDG_CACHE_HOME"], "triton")
    warnings.filterwarnings("ignore", category=RuntimeWarning)  # NumPy's, of NaN and infinity


def _found(name: str, *arguments: Any) -> Any:
    module, _, function = name.rpartition(".")
    return getattr(importlib.import_module(module), function)(*arguments)
