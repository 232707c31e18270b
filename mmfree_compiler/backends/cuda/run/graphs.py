"""Recording launches once, to repeat them with one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cuda.bindings import driver as cu

from mmfree_compiler.backends.cuda.run.device import Resource
from mmfree_compiler.backends.cuda.run.driver import SUCCESS, attempt, call, release
from mmfree_compiler.backends.cuda.run.streams import Stream

# Another thread, or Python's garbage collector in this one, may free memory at any time. Only in
# this mode does that not end the recording.
_MODE = cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED


class Graph(Resource):
    """What `record()` puts into `stream`, with the arguments it has then; none of it runs yet.

    The kernels' modules and memory have to stay open. Raises what `record` raises, and TargetError
    when the GPU refuses the graph.
    """

    def __init__(self, stream: Stream, record: Callable[[], None]) -> None:
        with stream.device.current():
            graph = _recorded(stream, record)
            try:
                executable = call(cu.cuGraphInstantiate, graph, 0)
            finally:
                release(cu.cuGraphDestroy, graph)
        super().__init__(stream.device, "graph", cu.cuGraphExecDestroy, executable)

    def replay(self, stream: Stream) -> None:
        """Put one run of everything that was recorded into a stream, in `device.current()`."""
        call(cu.cuGraphLaunch, self.handle, stream.handle)


def _recorded(stream: Stream, record: Callable[[], None]) -> Any:
    call(cu.cuStreamBeginCapture, stream.handle, _MODE)
    try:
        record()
    except BaseException:
        status, graph = attempt(cu.cuStreamEndCapture, stream.handle)
        if status == SUCCESS:
            release(cu.cuGraphDestroy, graph)
        raise
    return call(cu.cuStreamEndCapture, stream.handle)
