"""This machine's own limits, by ceilings.c: memory reads, and 8-bit multiply-adds in registers."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.native import compiled
from mmfree_compiler.backends.cpu.features import cpu_features, machine_arch
from mmfree_compiler.errors import InputError
from mmfree_compiler.wording import counted

SOURCE = Path(__file__).with_suffix(".c")
BUFFER_BYTES = 1 << 30  # many times any cache
SECONDS = 0.02  # how long a compute kernel runs, roughly


@dataclass(frozen=True)
class Ceiling:
    """A kernel of ceilings.c: `kernel` is its index there.

    `multiply_adds` is the work of one repetition; 0 means that it reads memory. `features` are what
    it needs from an x86-64 CPU; the reads are plain C and run everywhere.
    """

    name: str
    title: str
    kernel: int
    multiply_adds: int = 0
    features: frozenset[str] = frozenset()

    @property
    def unit(self) -> str:
        return "GMAC/s" if self.multiply_adds else "GB/s"

    def runs_here(self) -> bool:
        """Whether this CPU has what the kernel needs."""
        if not self.features:
            return True
        return machine_arch() == "x86_64" and self.features <= cpu_features()


_AMX = frozenset({"amx_tile", "amx_int8"})
_TABLE = (
    Ceiling("read", "DRAM read", 0),
    Ceiling("read_prefetched", "DRAM read, 4 prefetched streams", 1),
    Ceiling("vnni", "AVX512-VNNI int8", 2, 12 * 64, frozenset({"avx512f", "avx512_vnni"})),
    Ceiling("maddubs", "AVX2 maddubs int8", 3, 12 * 32, frozenset({"avx2"})),
    Ceiling("amx", "AMX int8", 4, 4 * 16 * 16 * 64, _AMX),
    Ceiling("amx_loads", "AMX int8, operands from L2", 5, 4 * 16 * 16 * 64, _AMX),
)
CEILINGS = {ceiling.name: ceiling for ceiling in _TABLE}

Rates = Mapping[str, float]  # name of a ceiling -> bytes or multiply-adds per second


def limit_seconds(rates: Rates, weight_bytes: int, multiply_adds: int) -> float:
    """The least time that the roofline allows: the longer of reading and arithmetic, in seconds.

    The highest rate of each kind counts; where no arithmetic was measured, reading alone.
    """
    reads = [rate for name, rate in rates.items() if not CEILINGS[name].multiply_adds]
    arithmetic = [rate for name, rate in rates.items() if CEILINGS[name].multiply_adds]
    times = [weight_bytes / max(reads)]
    times += [multiply_adds / max(arithmetic)] if arithmetic else []
    return max(times)


class Ceilings:
    """ceilings.c, compiled into `folder`, and the memory that it reads."""

    def __init__(self, folder: Path, buffer_bytes: int = BUFFER_BYTES) -> None:
        self._seconds = _compile(folder)
        self._bytes = buffer_bytes
        self._memory = mmap.mmap(-1, buffer_bytes)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        ctypes.memset(self._address, 1, buffer_bytes)  # unwritten pages are all one page of zeros
        self._counts = {c.name: self._count(c) for c in _TABLE if c.runs_here()}

    def measure(self, threads: int) -> dict[str, float]:
        """Every ceiling of this machine with `threads` threads, each on its own CPU.

        Raises InputError when the process has fewer CPUs.
        """
        found = {}
        for name, count in self._counts.items():
            work = CEILINGS[name].multiply_adds * count * threads or self._bytes
            found[name] = work / self._run(CEILINGS[name], count, threads)
        return found

    def _count(self, ceiling: Ceiling) -> int:
        """Repetitions that take about SECONDS; 0 for reads, which read the buffer once."""
        if not ceiling.multiply_adds:
            return 0
        trial = 100_000
        return int(trial * SECONDS / self._run(ceiling, trial, 1))

    def _run(self, ceiling: Ceiling, count: int, threads: int) -> float:
        cpus = sorted(os.sched_getaffinity(0))[:threads]
        if len(cpus) < threads:
            cause = f"more than the {counted(len(cpus), 'CPU')} that this process may use"
            raise InputError(f"threads {threads}", cause, "Choose fewer")
        size = 0 if ceiling.multiply_adds else self._bytes
        places = (ctypes.c_int * threads)(*cpus)
        return float(
            self._seconds(ceiling.kernel, self._address, size, count, threads, places),
        )


def _compile(folder: Path) -> ctypes._NamedFuncPointer:
    """The C function of ceilings.c, allowed to use AMX where the system has it."""
    code = compiled(SOURCE, folder)
    if hasattr(code, "ceilings_allow_amx"):
        code.ceilings_allow_amx()
    seconds = code.ceilings_seconds
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    seconds.argtypes = [number, pointer, size, ctypes.c_long, number, ctypes.POINTER(number)]
    seconds.restype = ctypes.c_double
    return seconds
