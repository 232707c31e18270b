"""The rules of a manifest: fields that contradict each other or the members are refused."""

from __future__ import annotations

from typing import Any

import pytest
from artifact_samples import sample_artifact
from pydantic import ValidationError

from mmfree_compiler.artifact import Build, Port, StateEntry, TargetEntry, TensorEntry

TOKENS = Port(name="tokens", dtype="int64", width=1, limit=10)
LOGITS = Port(name="logits", dtype="float32", width=10)
SOUND = {
    "dtype": "float32",
    "shape": (16,),
    "role": "row",
    "layout": "dense",
    "offset": 0,
    "nbytes": 64,
}


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "poem"},
        {"kind": "lm", "inputs": (LOGITS,)},
        {"kind": "lm", "outputs": (LOGITS, LOGITS)},
        {"outputs": (TOKENS,)},
        {"inputs": ()},
        {"targets": ()},
        {"fingerprint": "0" * 63},
        {"fingerprint": "G" * 64},
        {"states": (StateEntry(name="scan", shape=(16,)),) * 2},
        {"unknown": 1},
    ],
    ids=str,
)
def test_contradicting_fields_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        sample_artifact(**changes)


@pytest.mark.parametrize(
    "fields",
    [
        {"builds": (Build(name="x", abi=1, members={"kernels": "kernels/absent.so"}),)},
        {"offset": 1},
        {"offset": 64},  # with all of weights.bin from there
        {"nbytes": -1},
        {"unknown": 1},
    ],
    ids=str,
)
def test_contradicting_fields_of_a_target_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        sample_artifact(fields)


def entries(*targets: str, **fields: Any) -> tuple[TargetEntry, ...]:
    given: dict[str, Any] = {"nbytes": 0} | fields
    return tuple(TargetEntry(target=target, **given) for target in targets)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (entries("cpu", "cpu:fast"), "two targets are of one kind"),
        (entries("a:x", "b", "a:y"), "two targets are of one kind"),
        (entries("a", nbytes=1 << 20), "the constants of target a exceed weights.bin"),
        (entries("a", offset=1 << 20), "the constants of target a exceed weights.bin"),
        (
            (*entries("a", nbytes=64), *entries("b", tensors={"w": SOUND})),
            "tensor w exceeds the constants of target b",
        ),
        (
            (*entries("a"), *entries("b", builds=(Build(name="x", abi=1, members={"k": "no"}),))),
            "build x: no member no",
        ),
    ],
)
def test_contradicting_targets_are_refused(targets: tuple[TargetEntry, ...], message: str) -> None:
    sample_artifact(targets=entries("cpu", "a:x", "b"))
    with pytest.raises(ValidationError, match=message):
        sample_artifact(targets=targets)


@pytest.mark.parametrize(
    "fields",
    [
        {"nbytes": 63},
        {"offset": 4},
        {"offset": 1 << 20},
        {"dtype": "object"},
        {"shape": (-1, 4)},
        {"count": 0},
        {"role": "poem"},
        {"role": "table", "shape": (9,), "layout": "packed"},
    ],
    ids=str,
)
def test_tensors_outside_the_weights_are_refused(fields: dict[str, object]) -> None:
    sample_artifact({"nbytes": 128, "tensors": {"w": SOUND}})
    with pytest.raises(ValidationError):
        sample_artifact({"nbytes": 128, "tensors": {"w": SOUND | fields}})


@pytest.mark.parametrize("shape", [(), (0,), (4, -1), (1 << 32,), (1,) * 9], ids=str)
def test_states_have_a_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError):
        StateEntry(name="s", shape=shape)


def test_packed_tensors_need_equal_parts() -> None:
    with pytest.raises(ValidationError, match="equal parts"):
        TensorEntry(
            dtype="int8",
            shape=(4,),
            role="ternary",
            layout="packed",
            offset=0,
            nbytes=65,
            count=2,
        )


@pytest.mark.parametrize(
    ("layers", "shape"), [(1, "1 layer, 16 wide, "), (4, "4 layers, 16 wide, "), ("4", "")]
)
def test_what_it_is_in_a_few_words(layers: Any, shape: str) -> None:
    artifact = sample_artifact(model={"num_hidden_layers": layers, "hidden_size": 16})
    assert f", {shape}target " in artifact.manifest.summary
