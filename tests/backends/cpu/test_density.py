"""How densely weights are packed: for the CPUs that a variant is for, not for the one at hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from op_modules import SmallLM, runnable_variants

import mmfree_compiler as mmf
from mmfree_compiler import backends
from mmfree_compiler.artifact import WEIGHTS, Artifact, aligned_empty, read_artifact
from mmfree_compiler.backends.cpu import features
from mmfree_compiler.backends.cpu.compile import density
from mmfree_compiler.backends.cpu.compile.density import densities
from mmfree_compiler.backends.cpu.compile.packed import packed_name, reading
from mmfree_compiler.backends.cpu.compile.planned import PlannedProgram
from mmfree_compiler.backends.cpu.layouts import LAYOUTS, TILE16_2BIT, TILE16_TRITS
from mmfree_compiler.backends.cpu.spec import AUTO, DENSITIES, Spec
from mmfree_compiler.backends.cpu.variants import VARIANTS
from mmfree_compiler.cli import inspect
from mmfree_compiler.program import Constant, Program
from mmfree_compiler.runtime import Session

EVERY = Spec(tuple(VARIANTS))
WIDE, NARROW = "x86-64-avx512vbmi", "portable"
BOTH = f"{WIDE},{NARROW}"
LAYOUT = {WIDE: TILE16_TRITS.name, NARROW: TILE16_2BIT.name}
IDS = np.random.default_rng(0).integers(37, size=(2, 150))

both_variants = pytest.mark.parametrize("variant", [WIDE, NARROW])


def of_one_weight(rows: int, columns: int, parts: int) -> Program:
    """A Program that has a ternary weight, and a table that does not count."""
    codes = (np.zeros((rows, columns), np.int8),) * parts
    table = Constant("table", "float32", (4, 4), (np.zeros((4, 4), np.float32),), "table")
    weight = Constant("weight", "int8", (rows, columns), codes, "ternary")
    return Program("module", (), (), {}, {"table": table, "weight": weight}, (), ())


def layouts(program: Program, spec: Spec) -> dict[str, str]:
    return {variant: chosen.layout for variant, chosen in densities(program, spec).items()}


def compiled(options: str) -> Artifact:
    ids = torch.zeros(2, 3, dtype=torch.int64)
    return mmf.compile(SmallLM(), f"cpu:{options}", example_inputs=(ids,)).artifact


@pytest.fixture(scope="module")
def large() -> Artifact:
    """A tiny model compiled as if no cache held its weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(density, "CACHE_BYTES", 0)
        return compiled(BOTH)


def ternary_codes() -> dict[str, tuple[np.ndarray, ...]]:
    """The codes of each weight, as they are before a backend packs them."""
    ids = torch.zeros(2, 3, dtype=torch.int64)
    program = mmf.compile(SmallLM(), "reference", example_inputs=(ids,)).artifact.program
    assert program is not None
    return {name: c.parts for name, c in program.constants.items() if c.role == "ternary"}


# --- the choice ----------------------------------------------------------------------------------


def test_weights_that_a_cache_keeps_have_two_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the limit, every part of a loop counted, each filled to whole tiles and blocks."""
    program = of_one_weight(17, 33, parts=3)
    size = 3 * 32 * 48 // 4
    monkeypatch.setattr(density, "CACHE_BYTES", size)
    assert layouts(program, EVERY) == dict.fromkeys(VARIANTS, TILE16_2BIT.name)
    assert "stay in the cache" in densities(program, EVERY)[WIDE].reason
    monkeypatch.setattr(density, "CACHE_BYTES", size - 1)
    assert set(layouts(program, EVERY).values()) == set(LAYOUTS)


def test_of_large_weights_each_variant_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density, "CACHE_BYTES", 0)
    found = densities(of_one_weight(16, 20, parts=1), EVERY)
    for name, variant in VARIANTS.items():
        wide = variant.wide_lookup
        assert found[name].layout == (TILE16_TRITS.name if wide else TILE16_2BIT.name)
        assert ("read from DRAM" if wide else "more slowly than it reads") in found[name].reason
    assert {name: found[name].layout for name in LAYOUT} == LAYOUT


@pytest.mark.parametrize("cache", [0, 1 << 40])
@pytest.mark.parametrize("bits", DENSITIES)
def test_what_is_asked_for_is_taken(bits: str, cache: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density, "CACHE_BYTES", cache)
    found = densities(of_one_weight(16, 16, parts=1), Spec(tuple(VARIANTS), bits))
    assert {chosen.layout for chosen in found.values()} == {DENSITIES[bits]}
    assert f"{LAYOUTS[DENSITIES[bits]].bits:g}" == bits
    assert {chosen.reason for chosen in found.values()} == {f"{bits} bits per weight: asked for"}


def test_the_machine_that_compiles_does_not_matter(
    large: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes, wherever: with every feature, with none, on another architecture."""
    monkeypatch.setattr(density, "CACHE_BYTES", 0)
    everything = frozenset().union(*(variant.features for variant in VARIANTS.values()))
    for arch, has in (("x86_64", everything), ("x86_64", frozenset()), ("aarch64", everything)):
        monkeypatch.setattr(features, "machine_arch", lambda arch=arch: arch)
        monkeypatch.setattr(features, "cpu_features", lambda has=has: has)
        found = compiled(BOTH)
        assert found.manifest == large.manifest
        for name, data in large.members.items():
            assert np.array_equal(found.members[name], data), name


# --- weights packed in both ways -----------------------------------------------------------------


def test_weights_are_packed_for_each_layout_that_is_read(large: Artifact) -> None:
    program = large.program
    assert isinstance(program, PlannedProgram)
    assert program.layouts == LAYOUT
    expected = ternary_codes()
    packed = {name: c for name, c in program.constants.items() if c.role == "ternary"}
    assert packed.keys() == {packed_name(name, layout) for name in expected for layout in LAYOUTS}
    for name, codes in expected.items():
        for layout in LAYOUTS:
            constant = packed[packed_name(name, layout)]
            entry = large.entry.tensors[constant.name]
            assert entry.layout == constant.layout.name == layout
            assert (entry.role, entry.shape, entry.count) == ("ternary", codes[0].shape, len(codes))
            for part, data in zip(codes, large.tensor(constant.name), strict=True):
                found = LAYOUTS[layout].unpack(data, entry.shape)  # type: ignore[arg-type]
                assert np.array_equal(found, part)


@pytest.mark.parametrize(
    ("options", "only"),
    [
        (f"{NARROW},x86-64-v3", TILE16_2BIT.name),
        ("x86-64-amx,x86-64-avx512vbmi", TILE16_TRITS.name),
        (f"{BOTH},density=1.6", TILE16_TRITS.name),
    ],
)
def test_once_where_variants_agree(
    options: str, only: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(density, "CACHE_BYTES", 0)
    artifact = compiled(options)
    ternary = [t for t in artifact.entry.tensors.values() if t.role == "ternary"]
    assert {tensor.layout for tensor in ternary} == {only}
    assert len(ternary) == len(ternary_codes())
    assert {build.facts["layout"] for build in artifact.entry.builds} == {only}
    assert artifact.entry.target == f"cpu:{options}"


def test_small_weights_are_packed_once() -> None:
    tensors = compiled(BOTH).entry.tensors.values()
    assert {t.layout for t in tensors if t.role == "ternary"} == {TILE16_2BIT.name}


@both_variants
def test_a_program_reads_one_layout(large: Artifact, variant: str) -> None:
    program = large.program
    assert program is not None
    mine = reading(program, LAYOUT[variant])
    read = [mine.constants[n.inputs[2]] for n in mine.nodes() if n.op == "ternary_linear"]  # type: ignore[index]
    assert {constant.layout.name for constant in read} == {LAYOUT[variant]}
    for layout in LAYOUTS:  # there and back
        assert reading(reading(mine, layout), LAYOUT[variant]) == mine


@both_variants
def test_a_build_reads_its_own_layout(
    large: Artifact, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the other layout's bytes are; its own are another model when they change."""
    if variant not in runnable_variants():
        pytest.skip(f"does not run {variant}")
    monkeypatch.setenv("MMFREE_VARIANT", variant)
    session = Session(large, 2)
    build = next(build for build in large.entry.builds if build.name == variant)
    assert build.facts["layout"] == LAYOUT[variant]
    expected, _ = session(IDS)
    for layout in LAYOUTS:
        found, _ = Session(without(large, layout), 2)(IDS)
        assert np.array_equal(found, expected) == (layout != LAYOUT[variant])
    own = sum(t.nbytes for t in large.entry.tensors.values() if t.layout == LAYOUT[variant])
    assert session.launcher.weight_bytes == own


def without(artifact: Artifact, layout: str) -> Artifact:
    """The artifact with zeros in the place of the weights of a layout."""
    weights = aligned_empty(artifact.members[WEIGHTS].size, np.uint8)
    weights[:] = artifact.members[WEIGHTS]
    for tensor in artifact.entry.tensors.values():
        if tensor.layout == layout:
            weights[tensor.offset : tensor.offset + tensor.nbytes] = 0
    return replace(artifact, members={**artifact.members, WEIGHTS: weights})


@both_variants
def test_the_other_layout_beside_it_changes_nothing(
    large: Artifact, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does the density of its own: sums of codes are exact."""
    if variant not in runnable_variants():
        pytest.skip(f"does not run {variant}")
    monkeypatch.setenv("MMFREE_VARIANT", variant)
    expected, state = Session(large, 2)(IDS)
    for bits in DENSITIES:
        found, after = Session(compiled(f"{variant},density={bits}"), 2)(IDS)
        assert np.array_equal(found, expected)
        assert all(np.array_equal(after.part(n), part) for n, part in state.export().items())


def test_both_builds_agree(large: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit, as all instruction sets do."""
    if {WIDE, NARROW} - set(runnable_variants()):
        pytest.skip("does not run both")
    logits = []
    for variant in (WIDE, NARROW):
        monkeypatch.setenv("MMFREE_VARIANT", variant)
        logits.append(Session(large, 2)(IDS)[0])
    assert np.array_equal(*logits)


# --- what is said of it --------------------------------------------------------------------------


def test_inspect_says_what_each_build_reads(large: Artifact) -> None:
    facts = backends.get("cpu").describe(large)
    assert facts["variants"] == f"{WIDE}, {NARROW}"
    assert facts["bits per ternary weight"] == f"1.6: {WIDE}; 2: {NARROW}"


def test_inspect_counts_a_weight_once(large: Artifact, tmp_path: Path) -> None:
    large.save(tmp_path / "large.mmfree")
    size = (tmp_path / "large.mmfree").stat().st_size
    found = inspect.describe(read_artifact(tmp_path / "large.mmfree"), size)
    once = inspect.describe(compiled(f"{NARROW},density=1.6"), size)
    weights = sum(math.prod(parts[0].shape) * len(parts) for parts in ternary_codes().values())
    assert found["ternary_parameters"] == once["ternary_parameters"] == weights
    assert found["parameters"] == once["parameters"]
    read = [target["weights_bytes"] for each in (found, once) for target in each["targets"]]
    assert read == [read[0]] * 2
    packed = (t.nbytes for t in large.entry.tensors.values() if t.role == "ternary")
    assert found["bytes"][inspect.TERNARY] == sum(packed) > once["bytes"][inspect.TERNARY]


def test_explain_says_why(large: Artifact) -> None:
    notes = {n: text for name, n, text in large.entry.notes if name == "pack_weights"}
    assert notes.keys() == {WIDE, NARROW}
    assert notes[WIDE].startswith("1.6 bits per weight: ")
    assert notes[NARROW].startswith("2 bits per weight: ")
    assert AUTO not in large.entry.target
