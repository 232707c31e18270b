"""A process that forks while another of its threads runs the model."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np

from mmfree_compiler.runtime import load


def test_the_child_can_call_what_was_in_a_call(tiny_artifact: Path) -> None:
    session = load(tiny_artifact, 1)
    tokens = np.array([[1, 2, 3]])
    expected = session(tokens)[0]
    launcher = session.launcher
    held, release = threading.Event(), threading.Event()

    def call() -> None:
        with launcher._lock:  # type: ignore[attr-defined]  # as a call holds it
            held.set()
            release.wait()

    thread = threading.Thread(target=call)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(session(tokens)[0], expected) else 1)
    release.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
    assert np.array_equal(session(tokens)[0], expected)
