"""CPU features read from cpuinfo, and the choice of a variant by them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mmfree_compiler.backends.cpu import features
from mmfree_compiler.backends.cpu.compile.isa import ISAS
from mmfree_compiler.backends.cpu.features import choose, cpu_features
from mmfree_compiler.backends.cpu.variants import VARIANTS
from mmfree_compiler.errors import TargetError

X86 = """\
processor\t: 0
model name\t: A CPU with avx512f in its name
flags\t\t: fpu abm avx avx2 fma f16c avx512vbmi avx512_vnni

processor\t: 1
flags\t\t: fpu abm avx avx2 fma f16c avx512vbmi
vmx flags\t: vnmi
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp\nCPU implementer\t: 0x41\n"
# As Linux writes them for each generation of cores, cut to what matters and what could mislead.
ARM_CORES = {
    "aarch64": "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid",
    "aarch64-dotprod": "fp asimd evtstrm atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
    "aarch64-i8mm": "fp asimd evtstrm atomics fphp asimdhp asimddp sve svei8mm bf16 i8mm",
}


@dataclass(frozen=True)
class Code:
    """The least that `choose` needs of a variant."""

    name: str
    arch: str
    features: tuple[str, ...] = ()


PLAIN = Code("plain", "x86_64")
FAST = Code("fast", "x86_64", ("avx2", "fma"))
FASTER = Code("faster", "x86_64", ("avx2", "amx_int8"))
OTHER = Code("other", "aarch64")


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An x86-64 machine whose cpuinfo is the file that this returns."""
    path = tmp_path / "cpuinfo"
    path.write_text(X86)
    monkeypatch.setattr(features, "CPUINFO", path)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.delenv("MMFREE_VARIANT", raising=False)
    cpu_features.cache_clear()
    yield path
    cpu_features.cache_clear()


def test_features_common_to_all_cores() -> None:
    common = {"fpu", "lzcnt", "avx", "avx2", "fma", "f16c", "avx512_vbmi"}
    assert cpu_features() == common


def test_arm_features(machine: Path) -> None:
    machine.write_text(ARM)
    assert cpu_features() == {"fp", "asimd", "asimddp"}


@pytest.mark.parametrize("variant", ARM_CORES)
def test_arm_variants(machine: Path, monkeypatch: pytest.MonkeyPatch, variant: str) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    machine.write_text(f"processor\t: 0\nFeatures\t: {ARM_CORES[variant]}\n")
    assert choose(list(VARIANTS.values())).name == variant


def test_a_weaker_arm_core_decides(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads move between big and little cores."""
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    cores = [ARM_CORES["aarch64-i8mm"], ARM_CORES["aarch64"]]
    machine.write_text("\n".join(f"Features\t: {core}\n" for core in cores))
    assert choose(list(VARIANTS.values())).name == "aarch64"


def test_no_features_without_cpuinfo(machine: Path) -> None:
    machine.unlink()
    assert cpu_features() == frozenset()


def test_no_features_in_a_strange_cpuinfo(machine: Path) -> None:
    machine.write_text("nothing here\n")
    assert cpu_features() == frozenset()


def test_the_first_that_runs() -> None:
    assert choose([OTHER, FASTER, FAST, PLAIN]) is FAST
    assert choose([PLAIN, FAST]) is PLAIN


def test_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMFREE_VARIANT", "plain")
    assert choose([FAST, PLAIN]) is PLAIN


def test_forced_but_not_runnable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMFREE_VARIANT", "faster")
    with pytest.raises(TargetError, match=r"lacks amx_int8.*Unset MMFREE_VARIANT"):
        choose([FASTER, PLAIN])


def test_forced_but_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMFREE_VARIANT", "fastest")
    with pytest.raises(TargetError, match=r"fastest: is not in the artifact. It has: fast, plain"):
        choose([FAST, PLAIN])


def test_none_runs() -> None:
    with pytest.raises(TargetError) as caught:
        choose([FASTER, OTHER])
    assert "faster: this CPU lacks amx_int8" in str(caught.value)
    assert "other: is for aarch64, this machine is x86_64" in str(caught.value)


def test_empty_artifact() -> None:
    with pytest.raises(TargetError, match="It has: none"):
        choose([])


def test_the_compiler_knows_these_variants_in_the_same_order() -> None:
    assert list(VARIANTS) == list(ISAS)
    assert {name: variant.arch for name, variant in VARIANTS.items()} == {
        name: isa.triple.partition("-")[0] for name, isa in ISAS.items()
    }


def test_variants_go_from_demanding_to_portable() -> None:
    for arch in ("x86_64", "aarch64"):
        demands = [variant.features for variant in VARIANTS.values() if variant.arch == arch]
        assert demands == sorted(demands, key=len, reverse=True)
        assert not demands[-1]
    widest, level3 = VARIANTS["x86-64-avx512vnni"].features, VARIANTS["x86-64-v3"].features
    assert {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"} <= widest
    assert {"avx2", "fma", "f16c", "bmi2"} <= level3 < widest
