"""Queues of work on a GPU, and marks in them."""

from __future__ import annotations

from cuda.bindings import driver as cu

from mmfree_compiler.backends.cuda.run.device import Device, Resource
from mmfree_compiler.backends.cuda.run.driver import call


class Stream(Resource):
    """A queue: what is put into one runs in order, and in no order with the work of others."""

    def __init__(self, device: Device) -> None:
        with device.current():
            # Without this flag it would wait for everything that others, such as torch, put into
            # the default stream, and could not be captured while they do.
            handle = call(cu.cuStreamCreate, cu.CUstream_flags.CU_STREAM_NON_BLOCKING)
        super().__init__(device, "stream", cu.cuStreamDestroy, handle)

    def synchronize(self) -> None:
        """Wait until all work in it is done. Raises TargetError when some of it failed."""
        call(cu.cuStreamSynchronize, self.handle)


class BorrowedStream(Stream):
    """The stream of this handle, which somebody else made and destroys."""

    def __init__(self, handle: int) -> None:
        self._borrowed = handle

    @property
    def handle(self) -> int:
        return self._borrowed

    def close(self) -> None:
        """Nothing is destroyed."""


class Event(Resource):
    """A mark in a stream, with the time at which it was reached."""

    def __init__(self, device: Device) -> None:
        with device.current():
            handle = call(cu.cuEventCreate, cu.CUevent_flags.CU_EVENT_DEFAULT)
        super().__init__(device, "event", cu.cuEventDestroy, handle)

    def record(self, stream: Stream) -> None:
        """Set the mark behind the work that is in the stream now."""
        call(cu.cuEventRecord, self.handle, stream.handle)

    def record_in_graph(self, stream: Stream) -> None:
        """While a stream is recorded: set the mark each time that the graph comes to this place."""
        flag = cu.CUevent_record_flags.CU_EVENT_RECORD_EXTERNAL
        call(cu.cuEventRecordWithFlags, self.handle, stream.handle, flag)

    def delay(self, stream: int) -> None:
        """Make what is put into another stream, a handle, from now on wait for the mark."""
        call(cu.cuStreamWaitEvent, stream, self.handle, 0)

    def synchronize(self) -> None:
        """Wait until the mark is reached."""
        call(cu.cuEventSynchronize, self.handle)

    def seconds_since(self, earlier: Event) -> float:
        """Seconds from `earlier` to this mark, both reached; good to about half a microsecond."""
        return float(call(cu.cuEventElapsedTime, earlier.handle, self.handle)) / 1e3
