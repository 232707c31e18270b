"""What may follow "cpu:" in a target."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmfree_compiler import backends
from mmfree_compiler.backends.cpu.spec import AUTO, DENSITIES, Spec, parse
from mmfree_compiler.backends.cpu.variants import VARIANTS, usual_variants
from mmfree_compiler.errors import TargetError

SPECS = st.builds(
    Spec,
    st.lists(st.sampled_from(sorted(VARIANTS)), min_size=1, unique=True).map(tuple),
    st.sampled_from([AUTO, *DENSITIES]),
)


def test_variants_and_a_density() -> None:
    assert parse("x86-64-v3,density=2") == Spec(("x86-64-v3",), "2")
    assert parse("density=1.6,portable,x86-64-v3") == Spec(("portable", "x86-64-v3"), "1.6")
    assert parse("portable,portable") == Spec(("portable",))
    assert backends.of("cpu:portable") == (backends.get("cpu"), Spec(("portable",)))


def test_nothing_is_the_default() -> None:
    assert parse("") == Spec(usual_variants()) == backends.of("cpu")[1]
    assert parse("density=auto") == parse("")
    assert str(parse("")) == ""
    assert str(parse(",".join(usual_variants()))) == ""
    assert parse("density=2") == Spec(usual_variants(), "2")


@pytest.mark.parametrize(
    ("machine", "usual"),
    [("x86_64", "x86-64-amx"), ("aarch64", "aarch64-i8mm"), ("riscv64", "x86-64-amx")],
)
def test_the_default_is_for_this_architecture(
    machine: str, usual: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All usual variants where none is for it: compiling for another machine is possible there."""
    monkeypatch.setattr("platform.machine", lambda: machine)
    variants = parse("").variants
    assert variants[0] == usual
    assert "x86-64-avx512vnni" not in variants
    found = {VARIANTS[name].arch for name in variants}
    assert found == ({machine} if machine != "riscv64" else {"x86_64", "aarch64"})


@given(SPECS)
def test_texts_round_trip(spec: Spec) -> None:
    assert parse(str(spec)) == spec
    assert str(parse(str(spec))) == str(spec)


@given(SPECS, st.randoms())
def test_the_order_of_variants_alone_matters(spec: Spec, random: object) -> None:
    """A density may stand anywhere, and variants may be repeated."""
    words = [*spec.variants, *spec.variants]
    words.insert(random.randint(0, len(words)), f"density={spec.density}")  # type: ignore[attr-defined]
    assert parse(",".join(words)) == spec


@pytest.mark.parametrize(
    ("options", "cause", "known"),
    [
        ("x86-64-v9", "unknown variant 'x86-64-v9'", VARIANTS),
        ("portable,sse,mmx", "unknown variant 'sse, mmx'", VARIANTS),
        ("PORTABLE", "unknown variant 'PORTABLE'", VARIANTS),
        ("portable,speed=9", "unknown option 'speed'", ["density"]),
        ("density=3", "unknown density '3'", [AUTO, *DENSITIES]),
        ("density=", "unknown density ''", [AUTO, *DENSITIES]),
        ("portable,density=2=2", "unknown density '2=2'", [AUTO, *DENSITIES]),
    ],
)
def test_errors_name_what_is_known(options: str, cause: str, known: list[str]) -> None:
    with pytest.raises(TargetError) as caught:
        parse(options)
    assert caught.value.thing == f"target 'cpu:{options}'"
    assert caught.value.cause == cause
    assert caught.value.hint == f"Known: {', '.join(known)}"


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        (",", "has an empty option"),
        ("portable,", "has an empty option"),
        ("density", "density needs a value"),
        ("portable,density", "density needs a value"),
    ],
)
def test_options_that_are_not_finished(options: str, cause: str) -> None:
    with pytest.raises(TargetError, match=f"{cause}. Write cpu:portable,density=2"):
        parse(options)


def test_one_density() -> None:
    with pytest.raises(TargetError, match="names several densities"):
        parse("density=2,density=1.6")
    assert parse("density=2,density=2").density == "2"
