"""Options of the target, and which build a GPU runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmfree_compiler.artifact import Build, TargetEntry
from mmfree_compiler.backends.cuda import spec
from mmfree_compiler.backends.cuda.archs import ARCHS
from mmfree_compiler.backends.cuda.choose import choose, fitting
from mmfree_compiler.backends.cuda.facts import ABI
from mmfree_compiler.backends.cuda.spec import Spec, parse
from mmfree_compiler.errors import TargetError


@given(st.lists(st.sampled_from(sorted(ARCHS)), min_size=1, unique=True))
def test_options_and_their_spelling(names: list[str]) -> None:
    found = parse(",".join(names))
    assert found == Spec(tuple(names))
    assert parse(str(found)) == found


@pytest.mark.parametrize("options", ["sm_70", "sm_90,", "9.0", "sm_90,cpu", "density=2"])
def test_unknown_options(options: str) -> None:
    with pytest.raises(TargetError, match="Known: sm_80, sm_86"):
        parse(options)


def test_without_a_gpu_all_architectures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spec, "_usual", lambda: tuple(ARCHS))
    assert parse("").archs == tuple(ARCHS)
    assert str(parse("")) == ""


@pytest.mark.parametrize(
    ("capability", "name"),
    [
        ((9, 0), "sm_90"),
        ((8, 0), "sm_80"),
        ((8, 7), "sm_86"),
        ((8, 9), "sm_89"),
        ((10, 3), "sm_100"),
        ((12, 1), "sm_120"),
        ((7, 5), None),
        ((13, 0), None),
    ],
)
def test_the_architecture_for_a_gpu(capability: tuple[int, int], name: str | None) -> None:
    found = fitting(ARCHS.values(), capability)
    assert (found.name if found else None) == name


def entry(*names: str, abi: int = ABI) -> TargetEntry:
    builds = tuple(Build(name=name, abi=abi) for name in names)
    return TargetEntry(target="cuda", nbytes=0, builds=builds)


def test_the_build_for_a_gpu() -> None:
    assert choose(entry("sm_90", "sm_80", "sm_86"), (8, 9)).name == "sm_86"


@pytest.mark.parametrize(
    ("made", "capability", "hint"),
    [
        (entry("sm_90"), (8, 0), "Compile it for cuda:sm_80"),
        (entry("sm_90", abi=ABI + 1), (9, 0), "Compile it for cuda:sm_90"),
        (entry("sm_90"), (7, 5), "Use a newer GPU"),
    ],
)
def test_no_build_for_a_gpu(made: TargetEntry, capability: tuple[int, int], hint: str) -> None:
    with pytest.raises(TargetError, match=hint):
        choose(made, capability)
