"""Compiling kernels ahead of time: Triton, for a device that need not be here."""

from __future__ import annotations

import importlib.util
import pickle
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from mmfree_compiler.artifact.binding import NOTE, SIZE
from mmfree_compiler.backends.cuda.archs import ARCHS
from mmfree_compiler.backends.cuda.compile.kernel import Source, header
from mmfree_compiler.backends.cuda.facts import Argument, Kernel
from mmfree_compiler.backends.cuda.strides import ALIGNMENT
from mmfree_compiler.building import cache
from mmfree_compiler.building.jobs import pieces, sources
from mmfree_compiler.errors import ToolchainError

WARP = 32  # threads
# No product is fused with a sum: docs/arithmetic.md.
OPTIONS: dict[str, Any] = {"enable_fp_fusion": False}


@dataclass(frozen=True)
class Job:
    """See building.jobs.Job: a piece is one kernel for one architecture, such as "sm_90.NAME"."""

    kernels: Mapping[str, Source]

    def key(self, name: str) -> str:
        arch, kernel = name.split(".")
        return cache.key(sources(), version("triton"), arch, repr(self.kernels[kernel]))

    def compile(self, name: str) -> bytes:
        arch, kernel = name.split(".")
        source = self.kernels[kernel]
        made = triton_compiled(source, arch)
        return pickle.dumps((made.asm["cubin"], _kernel(source, made, arch)))

    def apart(self, name: str) -> bool:
        """Triton 3.9 leaks references in Gluon's reductions, and its process ends with a list."""
        _, kernel = name.split(".")
        return self.kernels[kernel].language == "gluon"

    def hint(self) -> str:
        return "If memory ran out, compile for fewer GPUs: --target cuda:sm_90"


def compiled(
    kernels: Sequence[Source], archs: Sequence[str]
) -> dict[str, tuple[bytes, dict[str, Kernel]]]:
    """By architecture: the member with all cubins, and each kernel's place in it.

    Raises ToolchainError.
    """
    job = Job({source.name: source for source in kernels})
    made = pieces(job, [f"{arch}.{name}" for arch in archs for name in job.kernels])
    return {arch: _joined(made, arch, job) for arch in archs}


def _joined(made: Mapping[str, bytes], arch: str, job: Job) -> tuple[bytes, dict[str, Kernel]]:
    """Cubins one after another, behind the note that binds them to a manifest (binding.py)."""
    code, places = NOTE + bytes(SIZE), {}
    for name in job.kernels:
        cubin, kernel = pickle.loads(made[f"{arch}.{name}"])
        places[name] = kernel.model_copy(update={"offset": len(code)})
        code += cubin
    return code, places


@contextmanager
def _caching(folder: str) -> Iterator[None]:
    """A block in which Triton keeps what it makes in `folder`, and not in the user's home.

    Raises ToolchainError where Triton only interprets.
    """
    from triton import knobs

    if knobs.runtime.interpret:
        cause = "is set, so Triton compiles nothing"
        raise ToolchainError("TRITON_INTERPRET", cause, "Unset it, and start again")
    with knobs.cache.scope():
        knobs.cache.dir = folder
        yield


def loaded(
    kernels: Sequence[Source],
    folder: Path,
    asm: bool = True,
    dependent: bool = False,
    stages: int = 1,
) -> ModuleType:
    """A module of all kernels, of one language; Triton reads their text from its file.

    Without `asm` Triton's can be interpreted.
    """
    path = folder / "generated_kernels.py"
    (language,) = {source.language for source in kernels}
    texts = [header(language, asm, dependent, stages), *(source.text for source in kernels)]
    path.write_text("\n\n".join(texts))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def triton_compiled(source: Source, arch: str) -> Any:
    """What Triton makes of a kernel for "sm_90": `asm` by stage, such as "cubin", and `metadata`.

    It loads less ahead where the architecture has too little shared memory. Raises ToolchainError
    where nothing fits, and where Triton only interprets.
    """
    for stages in range(source.stages, 0, -1):
        made = _triton(source, arch, stages)
        if made.metadata.shared <= ARCHS[arch].shared:
            return made
    cause = f"needs {made.metadata.shared:,} bytes of shared memory, {arch} has less"
    raise ToolchainError(f"kernel {source.name}", cause, "Compile for another GPU")


def _triton(source: Source, arch: str, stages: int) -> Any:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.experimental.gluon._runtime import GluonASTSource

    target = GPUTarget("cuda", int(arch.removeprefix("sm_")), WARP)
    kind = GluonASTSource if source.language == "gluon" else ASTSource
    with tempfile.TemporaryDirectory() as folder, _caching(folder):
        dependent = ARCHS[arch].has_dependent_launch
        module = loaded([source], Path(folder), dependent=dependent, stages=stages)
        function = getattr(module, source.name)
        types = dict(zip(function.arg_names, source.parameters, strict=True))
        ast = kind(function, types, attrs=_aligned(source.arguments))
        options = OPTIONS | {"num_warps": source.warps, "num_stages": stages}
        return triton.compile(ast, target, options)


def _kernel(source: Source, made: Any, arch: str) -> Kernel:
    return Kernel(
        symbol=made.metadata.name,
        offset=0,
        size=len(made.asm["cubin"]),
        warps=made.metadata.num_warps,
        shared=max(made.metadata.shared, min(source.shared, ARCHS[arch].shared)),
        dependent=ARCHS[arch].has_dependent_launch,
        parameters=list(source.parameters),
    )


def _aligned(arguments: Sequence[Argument]) -> Mapping[tuple[int], Any]:
    """What Triton may assume of pointers: that they are multiples of ALIGNMENT bytes."""
    return {
        (index,): [["tt.divisibility", ALIGNMENT]]
        for index, argument in enumerate(arguments)
        if argument.space not in ("input", "output")
        and not argument.offset % ALIGNMENT
        and not argument.stride % ALIGNMENT
    }
