"""What the CPU libraries may contain."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import DEMO
from elf import undefined_symbols
from op_modules import SmallLM

import mmfree_compiler as mmf
from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.cpu.compile.toolchain import compile_object, link
from mmfree_compiler.backends.cpu.compile.toolchains import host_triple
from mmfree_compiler.backends.cpu.variants import usual_variants
from mmfree_compiler.compiled_model import CompiledModel

# All that a library may call. Of these only pthread_create allocates: a worker's stack, once.
POOL = """__cxa_finalize __register_atfork __sched_cpucount __tls_get_addr clock_gettime
    pthread_create pthread_getaffinity_np pthread_join pthread_mutex_init pthread_mutex_lock
    pthread_mutex_unlock pthread_self pthread_sigmask sched_getaffinity sched_getcpu
    sched_setaffinity sigdelset sigfillset syscall"""
KERNELS = "TVMFFIErrorSetRaisedFromCStrParts memcpy memset rintf"
CALLS = {*POOL.split(), *KERNELS.split()}


def compiled(layers: int) -> CompiledModel:
    ids = torch.zeros(2, 3, dtype=torch.int64)
    return mmf.compile(SmallLM(L=layers), "cpu:x86-64-amx,portable", example_inputs=(ids,))


@pytest.fixture(scope="module")
def demo() -> Artifact:
    """The demo model, whose kernels the tests of its bits compile too."""
    return mmf.compile(DEMO, check=False).artifact


@pytest.mark.parametrize("variant", usual_variants())
def test_nothing_comes_from_the_heap_of_tvm(demo: Artifact, variant: str) -> None:
    """Its allocator is in TVM's runtime, which a deployment does not have; nor would a step that
    allocates be wanted."""
    code = demo.members[f"kernels/{variant}.so"].tobytes()
    assert b"decode" in code
    assert b"TVMBackendAllocWorkspace" not in code


@pytest.mark.parametrize("variant", usual_variants())
def test_nothing_that_allocates_is_called(demo: Artifact, variant: str) -> None:
    code = demo.members[f"kernels/{variant}.so"].tobytes()
    assert undefined_symbols(code) <= CALLS


def test_an_allocation_would_be_seen(tmp_path: Path) -> None:
    source = tmp_path / "kernel.c"
    source.write_text("#include <stdlib.h>\nvoid *decode(int n) { return calloc(n, 3); }\n")
    (tmp_path / "kernel.o").write_bytes(compile_object(source, host_triple()))
    link([tmp_path / "kernel.o"], tmp_path / "kernel.so", host_triple())
    assert undefined_symbols((tmp_path / "kernel.so").read_bytes()) - CALLS == {"calloc"}


def test_code_does_not_grow_with_depth() -> None:
    shallow, deep = compiled(layers=2), compiled(layers=9)
    for name, code in shallow.artifact.members.items():
        if name.startswith("kernels/"):
            # Offsets into a larger weights.bin take longer encodings here and there.
            assert len(deep.artifact.members[name]) < 1.1 * len(code)


def test_a_library_for_another_architecture() -> None:
    """Compiled and linked; not run here."""
    ids = torch.zeros(2, 3, dtype=torch.int64)
    model = mmf.compile(SmallLM(), "cpu:aarch64,portable", example_inputs=(ids,))
    machines = {
        name: int.from_bytes(code[18:20].tobytes(), "little")  # e_machine of the ELF header
        for name, code in model.artifact.members.items()
        if name.startswith("kernels/")
    }
    assert machines == {"kernels/aarch64.so": 183, "kernels/portable.so": 62}
    for name in machines:
        model.artifact.check_binding(name)  # read from its bytes: nothing of it can run here
