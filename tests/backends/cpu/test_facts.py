"""The facts of a CPU build are read strictly, and only under the calling convention known here."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from artifact_samples import sample_artifact, sample_build
from hypothesis import given
from hypothesis import strategies as st

from mmfree_compiler import backends
from mmfree_compiler.artifact import Artifact, Build
from mmfree_compiler.backends.cpu import features
from mmfree_compiler.backends.cpu.choose import choose
from mmfree_compiler.backends.cpu.facts import ABI, CpuBuild, Facts, MemoryPlan
from mmfree_compiler.backends.cpu.layouts import LAYOUTS
from mmfree_compiler.backends.cpu.run.launcher import CpuLauncher
from mmfree_compiler.errors import ArtifactError
from mmfree_compiler.runtime import Session

Place = tuple[str, ...]  # of a field in nested records
LEFT_OUT = object()
COUNTS = ("shared", "private", "codes", "scratch")

names = st.text(min_size=1, max_size=9)
sound_facts = st.builds(
    Facts,
    arch=names,
    features=st.lists(names, max_size=4),
    layout=st.sampled_from(sorted(LAYOUTS)),
    memory=st.builds(
        MemoryPlan,
        **{name: st.integers(0, 1 << 48) for name in COUNTS},
        chunk=st.integers(1, 1 << 31),
    ),
    tuning=st.dictionaries(names, st.integers(-(1 << 60), 1 << 60), max_size=3),
)


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine that the sample is for."""
    monkeypatch.setattr(features, "machine_arch", lambda: "x86_64")
    monkeypatch.delenv("MMFREE_VARIANT", raising=False)


def build(facts: dict[str, Any], name: str = "sample", abi: int = ABI) -> Build:
    return sample_build().model_copy(update={"name": name, "abi": abi, "facts": facts})


def changed(place: Place, value: object) -> dict[str, Any]:
    """The sample's facts with another value at a place, or none."""
    facts = deepcopy(sample_build().facts)
    record: Any = facts
    for key in place[:-1]:
        record = record[key]
    if value is LEFT_OUT:
        del record[place[-1]]
    else:
        record[place[-1]] = value
    return facts


FAULTS: list[tuple[Place, object]] = [
    *(((name,), LEFT_OUT) for name in ("arch", "features", "layout", "memory")),
    (("more",), 1),
    (("memory", "more"), 1),
    (("arch",), None),
    (("arch",), 64),
    (("features",), "avx2"),
    (("features",), {"avx2": True}),
    (("features",), None),
    (("layout",), 2),
    (("layout",), "tile16_3bit"),
    (("layout",), "dense"),
    (("memory",), None),
    (("memory",), [1, 2, 3, 4, 5]),
    *((("memory", name), -1) for name in (*COUNTS, "chunk")),
    *((("memory", name), (1 << 48) + 1) for name in COUNTS),
    *((("memory", name), wrong) for name in COUNTS for wrong in ("1", 1.0, True, None)),
    (("memory", "chunk"), 0),
    (("memory", "chunk"), (1 << 31) + 1),
    (("memory", "chunk"), "128"),
    (("tuning",), None),
    (("tuning",), []),
]


@pytest.mark.parametrize(("place", "value"), FAULTS)
def test_a_fault_names_the_build_and_the_field(place: Place, value: object) -> None:
    with pytest.raises(ArtifactError) as caught:
        CpuBuild(build(changed(place, value)))
    assert caught.value.thing == "build sample"
    assert f" facts: {'.'.join(place)}: " in caught.value.cause


@pytest.mark.parametrize("value", ["1", 1.0, True, None, [1]])
def test_settings_are_whole_numbers(value: object) -> None:
    with pytest.raises(ArtifactError, match=r"build sample: .* facts: tuning.tokens: "):
        CpuBuild(build(changed(("tuning",), {"tokens": value})))


@pytest.mark.parametrize("value", [[1], [None], ["avx2", b"fma"]])
def test_features_are_names(value: list[object]) -> None:
    with pytest.raises(ArtifactError, match=r"build sample: .* facts: features.\d: "):
        CpuBuild(build(changed(("features",), value)))


def test_a_build_without_kernels_is_refused() -> None:
    bare = sample_build().model_copy(update={"members": {}})
    with pytest.raises(ArtifactError, match="build portable: has no member 'kernels'"):
        CpuBuild(bare)


@given(sound_facts)
def test_sound_facts_are_read_from_json(facts: Facts) -> None:
    made = Build(name="x", abi=ABI, members=sample_build().members, facts=facts.model_dump())
    read = CpuBuild(Build.model_validate_json(made.model_dump_json(), strict=True))
    assert read.facts == facts
    assert (read.name, read.abi, read.arch) == ("x", ABI, facts.arch)
    assert read.features == facts.features


# --- where they are read -------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 1])
def test_faults_of_any_build_are_found(at: int) -> None:
    """Also of one that would not run here."""
    builds = [build(sample_build().facts, name) for name in ("first", "second")]
    builds[at] = build({}, builds[at].name)
    artifact = sample_artifact({"builds": tuple(builds)})
    expected = f"build {builds[at].name}: .* facts: "
    for read in (lambda: choose(artifact.entry), lambda: backends.get("cpu").describe(artifact)):
        with pytest.raises(ArtifactError, match=expected):
            read()
    with pytest.raises(ArtifactError, match=expected):
        Session(artifact, 1)


@pytest.mark.parametrize("abi", [ABI - 1, ABI + 1, 1])
def test_another_calling_convention_is_refused(abi: int) -> None:
    """Before its library is loaded: here, one that is not even a library."""
    artifact = of_abi(abi)
    for read in (lambda: choose(artifact.entry), lambda: CpuLauncher.open(artifact, 1)):
        with pytest.raises(ArtifactError, match=f"build portable: .*{abi}.*{ABI}"):
            read()
    described = backends.get("cpu").describe(artifact)
    assert described["variants"] == "portable"
    assert "build portable" in described["runs here with"]


def of_abi(abi: int) -> Artifact:
    """Of facts that this version cannot read, as those of another convention may be."""
    return sample_artifact({"builds": (build({"unheard": "of"}, "portable", abi),)})


def test_the_convention_of_a_build_that_does_not_run_here_does_not_matter() -> None:
    other = build(changed(("arch",), "another"), "other", ABI + 1)
    chosen = choose(sample_artifact({"builds": (other, sample_build())}).entry)
    assert chosen.name == "portable"
    assert chosen.facts == Facts.model_validate(sample_build().facts)


def test_a_library_that_is_none_is_an_artifact_error() -> None:
    with pytest.raises(ArtifactError, match="kernels' library"):
        CpuLauncher.open(sample_artifact(), 1)


def test_kernels_without_their_functions_are_an_artifact_error(tmp_path: Path) -> None:
    from mmfree_compiler.backends.cpu.compile.toolchain import compile_object, link
    from mmfree_compiler.backends.cpu.compile.toolchains import host_triple

    (tmp_path / "empty.c").write_text("int nothing;\n")
    (tmp_path / "empty.o").write_bytes(compile_object(tmp_path / "empty.c", host_triple()))
    link([tmp_path / "empty.o"], tmp_path / "empty.so", host_triple())
    artifact = sample_artifact()
    changed = artifact.rebuilt({"kernels/portable.so": (tmp_path / "empty.so").read_bytes()})
    with pytest.raises(ArtifactError, match="has no function decode"):
        CpuLauncher.open(changed, 1)
