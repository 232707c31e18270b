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
    """`function` of every item, in order; a thread a CPU, each with an item of its own.

    torch's own threads are left out meanwhile: many small steps then have no barriers between them.
    """
    threads = torch.get_num_threads()
    alone = partial(torch.set_num_threads, 1)
    try:
        with ThreadPoolExecutor(available_cpus(), initializer=alone) as pool:
            return list(pool.map(function, items))
    finally:
        torch.set_num_threads(threads)
