"""The toolchain builds libraries that load without TVM, keeps its cache, and fails clearly."""

from __future__ import annotations

import ctypes
import shutil
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmfree_compiler.backends.cpu.compile import toolchain, toolchains
from mmfree_compiler.building import cache
from mmfree_compiler.errors import ToolchainError

HOST = toolchains.host_triple()
every_toolchain = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.skipif(not kind.find(), reason=f"{name} is absent"))
        for name, kind in toolchains.TOOLCHAINS.items()
    ],
)


@pytest.fixture
def answer(tmp_path: Path) -> Path:
    """A C source that defines `answer() == 42`."""
    source = tmp_path / "answer.c"
    source.write_text("int answer(void) { return 42; }\n")
    return source


def _object(source: Path, triple: str) -> Path:
    path = source.with_suffix(".o")
    path.write_bytes(toolchain.compile_object(source, triple))
    return path


@every_toolchain
def test_compiles_and_links(name: str, answer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMFREE_LINKER", name)
    library = answer.with_name("answer.so")
    toolchain.link([_object(answer, HOST)], library, HOST)
    assert ctypes.CDLL(str(library)).answer() == 42
    assert {path.name for path in answer.parent.iterdir()} == {"answer.c", "answer.o", "answer.so"}


@pytest.mark.slow
@pytest.mark.skipif(not toolchains.TOOLCHAINS["zig"].find(), reason="zig is absent")
@pytest.mark.parametrize(
    ("triple", "machine"), [("x86_64-linux-gnu", 62), ("aarch64-linux-gnu", 183)]
)
def test_links_for_other_machines(triple: str, machine: int, answer: Path) -> None:
    library = answer.with_name("answer.so")
    toolchain.link([_object(answer, triple)], library, triple)
    assert int.from_bytes(library.read_bytes()[18:20], "little") == machine  # ELF e_machine


def test_pool_object_is_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    before = toolchain.source_object(toolchain.THREADS_SOURCE, HOST)

    def unexpected(*_: object) -> bytes:
        raise AssertionError("compiled again")

    monkeypatch.setattr(toolchain, "compile_object", unexpected)
    assert toolchain.source_object(toolchain.THREADS_SOURCE, HOST) == before


def test_a_failing_compiler_is_quoted_and_leaves_nothing(answer: Path) -> None:
    answer.write_text("int answer(void) { return nothing_declared; }\n")
    with pytest.raises(ToolchainError, match="nothing_declared"):
        toolchain.compile_object(answer, HOST)
    with pytest.raises(ToolchainError, match="absent"):
        toolchain.link([answer.with_name("absent.o")], answer.with_name("answer.so"), HOST)
    assert [path.name for path in answer.parent.iterdir()] == ["answer.c"]


@pytest.mark.parametrize(
    "said",
    [
        "warning(zcu): unable to write cached ZIR code for lib/std/zip.zig to z/f42c: NoSpaceLeft",
        "fatal error: error in backend: IO failure on output stream: No space left on device",
        "error: unable to build glibc shared objects: DiskQuota",
    ],
)
@pytest.mark.parametrize("kind", ["cache", "temporary"])
def test_a_full_disk_is_named(
    said: str, kind: str, answer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_usage(path: Path) -> SimpleNamespace:
        return SimpleNamespace(free=0 if path == full else 1 << 40)

    folders = {"cache": cache.folder("zig"), "temporary": Path(tempfile.gettempdir())}
    variables = {"cache": "XDG_CACHE_HOME", "temporary": "TMPDIR"}
    full = folders[kind]
    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    failing = [sys.executable, "-c", f"import sys; sys.exit({said!r} + 'x' * 5000)"]
    fake = toolchains.Toolchain("fake", lambda: "1", lambda _: failing)
    monkeypatch.setattr(toolchains, "TOOLCHAINS", {"fake": fake})
    with pytest.raises(ToolchainError) as caught:
        toolchain.compile_object(answer, HOST)
    assert str(caught.value) == (
        f"{kind} folder {full}: has no space left. "
        f"Free 64 MB there, or set {variables[kind]} to another folder"
    )


def test_a_call_of_an_absent_runtime_is_refused(answer: Path) -> None:
    answer.write_text("void *__TVMBackendAllocWorkspace; void *__TVMBackendParallelLaunch2;\n")
    code = _object(answer, HOST)
    with pytest.raises(ToolchainError, match="AllocWorkspace, __TVMBackendParallelLaunch2 of TVM"):
        toolchain.link([code], answer.with_name("answer.so"), HOST)


def test_a_missing_output_folder_is_named(answer: Path) -> None:
    with pytest.raises(ToolchainError, match="no-such-folder"):
        toolchain.link([answer], answer.parent / "no-such-folder" / "answer.so", HOST)


def test_unknown_toolchain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMFREE_LINKER", "mold")
    with pytest.raises(ToolchainError, match="Known: zig, system"):
        toolchains.find_toolchain()


def test_no_toolchain_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MMFREE_LINKER", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ToolchainError, match="pip install ziglang"):
        toolchains.find_toolchain()


def test_a_missing_cross_compiler_is_named(answer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMFREE_LINKER", "system")
    with pytest.raises(ToolchainError, match="riscv64-linux-gnu-gcc"):
        toolchain.compile_object(answer, "riscv64-linux-gnu")
