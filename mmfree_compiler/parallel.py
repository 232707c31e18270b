"""The same work on many items, on every CPU that this process may use."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import torch

from mmfree_compiler.cpus import available_cpus

A = TypeVar("A")
R = TypeVar("R")


def each(function: Callable[[A], R], items: Iterable[A]) -> list[R]:
    """`function` of every item, in order, on one thread per CPU.

    torch runs single-threaded in each: its own threads would wait for each other after every small
    step.
    """
    threads = torch.get_num_threads()
    single_threaded = partial(torch.set_num_threads, 1)
    try:
        with ThreadPoolExecutor(available_cpus(), initializer=single_threaded) as pool:
            return list(pool.map(function, items))
    finally:
        torch.set_num_threads(threads)
