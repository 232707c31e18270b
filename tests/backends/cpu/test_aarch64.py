"""The aarch64 variants, cross-compiled here and run in emulation: exact, whatever the CPU has."""

from __future__ import annotations

import signal
import subprocess
from functools import cache

import numpy as np
import pytest
import torch
from aarch64_emulation import CPUS, Library, emulate, missing
from golden_cases import golden_cases
from model_bits import digest
from op_modules import Products, SmallLM, integer_rows, state_rows
from special_values import Pointwise, Rows, assert_same_bits, forced_rows, pairs

import mmfree_compiler as mmf
from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.cpu.choose import choose
from mmfree_compiler.backends.cpu.run import launcher
from mmfree_compiler.runtime import Session

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

TARGET = f"cpu:{','.join(CPUS)}"
ANY = "aarch64"  # for every CPU

on_each_cpu = pytest.mark.parametrize("variant", CPUS)


@pytest.fixture(scope="module", params=["1.6", "2"])
def products(request: pytest.FixtureRequest) -> Artifact:
    target, inputs = f"{TARGET},density={request.param}", tuple(integer_rows(3))
    return mmf.compile(Products(), target, example_inputs=inputs).artifact


@pytest.fixture(scope="module")
def tiny() -> Artifact:
    """Of the denser layout; the whole model below is of the other."""
    target, ids = f"{TARGET},density=1.6", torch.zeros(2, 3, dtype=torch.int64)
    return mmf.compile(SmallLM(), target, example_inputs=(ids,)).artifact


@on_each_cpu
def test_integer_sums_are_exact(
    products: Artifact, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulate(monkeypatch, variant)
    assert choose(products.entry).name == variant
    session, rows = Session(products, threads=2), integer_rows(70)
    for count in (1, 3, 25, 70):  # decode, and a chunk's blocks of tokens with every rest
        inputs = [x[:count] for x in rows]
        for found, exact in zip(session(*inputs), Products().exact(*inputs), strict=True):
            assert torch.equal(found.long(), exact)


@cache
def whole_model() -> tuple[Artifact, str]:
    """A golden case, and its digest on the reference."""
    folder = golden_cases()[0].folder
    return mmf.compile(folder, TARGET).artifact, digest(mmf.compile(folder, "reference").session)


@on_each_cpu
@pytest.mark.slow
def test_a_whole_model(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact, expected = whole_model()
    emulate(monkeypatch, variant)
    assert digest(Session(artifact, threads=2)) == expected


@on_each_cpu
def test_a_model_prefills_and_decodes(
    tiny: Artifact, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulate(monkeypatch, variant)
    ids = torch.randint(0, 37, (2, 21), generator=torch.Generator().manual_seed(1))
    expected = SmallLM()(ids)
    results = []
    for threads in (1, 2):
        session = Session(tiny, threads)
        logits, state = session(ids[:, :19])
        assert_same_bits(logits, expected[:, :19], "logits")
        batch, state = session(ids[:, 19:20], state)
        assert_same_bits(batch, expected[:, 19:20], "batch")
        _, alone = session(ids[:1, :20])
        last, alone = session(ids[:1, 20:], alone)
        assert_same_bits(last, expected[:1, 20:], "last")
        results.append((logits, batch, last, state_rows(state), state_rows(alone)))
    for one, two in zip(*results, strict=True):
        assert np.array_equal(one, two)


@pytest.mark.parametrize(
    ("variant", "cpu"),
    [
        ("aarch64-i8mm", CPUS["aarch64-dotprod"]),
        ("aarch64-i8mm", CPUS["aarch64"]),
        ("aarch64-dotprod", CPUS["aarch64"]),
    ],
)
def test_a_variant_uses_what_it_needs(
    tiny: Artifact, variant: str, cpu: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU without it stops at the instruction: the other tests ran what they say they ran."""
    emulate(monkeypatch, variant)
    code = tiny.members[f"kernels/{variant}.so"]
    monkeypatch.setattr(launcher, "load_library", lambda _: Library(cpu, code))
    with pytest.raises(subprocess.CalledProcessError) as caught:
        Session(tiny, threads=1)(torch.zeros(1, 1, dtype=torch.int64))
    assert caught.value.returncode == -signal.SIGILL


# test_cpu_special_values.py tests that all variants have the same code for what follows.


def test_special_values(monkeypatch: pytest.MonkeyPatch) -> None:
    emulate(monkeypatch, ANY)
    x, y = pairs(37)
    artifact = mmf.compile(Pointwise(), f"cpu:{ANY}", example_inputs=(x[:3], y[:3])).artifact
    found, expected = Session(artifact, threads=2)(x, y), Pointwise()(x, y)
    for name, a, b in zip(Pointwise.names, found, expected, strict=True):
        assert_same_bits(a, b, name, x, y)


@pytest.mark.parametrize("width", [1, 37, 129])
def test_rows(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many tokens in one call, and one."""
    emulate(monkeypatch, ANY)
    module, x = Rows(width), forced_rows(width)
    examples = (torch.ones(3, width),) * 2
    session = Session(mmf.compile(module, f"cpu:{ANY}", example_inputs=examples).artifact, 2)
    expected = module(x, x.flip(0))
    for count in (len(x), 1):
        got = session(x[:count], x.flip(0)[:count])
        for k, (a, b) in enumerate(zip(got, expected, strict=True)):
            assert_same_bits(a, b[:count], f"output {k} of {width} columns", x[:count])
