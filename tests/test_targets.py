"""Several targets in one artifact, from `compile` to the session that runs one of them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from no_gpu import without_a_gpu
from torch import nn
from wrong_passes import DoublesLastScale

import mmfree_compiler as mmf
from mmfree_compiler.artifact import WEIGHTS, Artifact, read_artifact
from mmfree_compiler.backends.cpu.compile.compiler import CpuCompiler
from mmfree_compiler.compiled_model import CompiledModel
from mmfree_compiler.errors import ArtifactError, InputError, MmfreeError, TargetError
from mmfree_compiler.models import BitLinear
from mmfree_compiler.runtime import Session, State, load
from mmfree_compiler.target import parse_targets

__all__ = ["without_a_gpu"]
CPU = "cpu:portable"
IDS = np.arange(1, 8)[None]


def test_what_all_targets_have_in_common_is_there_once(
    both_targets: Path, tiny_artifact: Path
) -> None:
    both, single = read_artifact(both_targets), read_artifact(tiny_artifact)
    common, alone = (
        artifact.manifest.model_dump(exclude={"targets", "members"}) for artifact in (both, single)
    )
    assert common == alone
    _, cpu = both.targets
    placed = {"offset", "nbytes", "tensors", "builds"}
    assert cpu.entry.model_dump(exclude=placed) == single.entry.model_dump(exclude=placed)
    for name in single.entry.tensors:
        assert np.array_equal(cpu.tensor(name), single.tensor(name))
    assert both.members.keys() == single.members.keys() | {"kernels/sm_80.cubins"}


def test_constants_that_both_store_alike_are_there_once(both_targets: Path) -> None:
    """All but the weights and the norms of a layer, which the CPU fills with zeros."""
    gpu, cpu = read_artifact(both_targets).targets
    shared = [
        name
        for name, tensor in gpu.entry.tensors.items()
        if name in cpu.entry.tensors and np.shares_memory(gpu.tensor(name), cpu.tensor(name))
    ]
    dense = [{n for n, t in v.entry.tensors.items() if t.layout == "dense"} for v in (gpu, cpu)]
    assert set(shared) == dense[0] & dense[1]
    (table,) = (name for name, t in gpu.entry.tensors.items() if t.role == "table")
    assert table in shared
    saved = sum(-(-gpu.entry.tensors[name].nbytes // 64) * 64 for name in shared)
    assert gpu.members[WEIGHTS].size == gpu.entry.nbytes + cpu.entry.nbytes - saved


def test_the_first_that_runs_here_has_the_same_bits(
    both_targets: Path, tiny_artifact: Path
) -> None:
    session, single = load(both_targets, 1, device=0), load(tiny_artifact, 1)
    assert session.artifact.entry.target == CPU
    assert [error.cause for error in session.refused.values()] == ["has no GPU"]
    assert np.array_equal(session(IDS)[0], single(IDS)[0])
    ours = list(session.generate("def ", max_new_tokens=5, seed=1))
    assert ours == list(single.generate("def ", max_new_tokens=5, seed=1))
    with pytest.raises(TargetError, match="this machine: has no GPU"):
        load(both_targets, target="cuda")


def test_states_go_from_file_to_file(
    both_targets: Path, tiny_artifact: Path, tmp_path: Path
) -> None:
    """As every artifact of the model has its fingerprint."""
    single = load(tiny_artifact, 1)
    _, state = single(IDS[:, :3])
    state.save(tmp_path / "state")
    found, _ = load(both_targets, 1)(IDS[:, 3:], State.load(tmp_path / "state"))
    assert np.array_equal(found, single(IDS)[0][:, 3:])


def test_code_is_bound_to_the_whole_file(both_targets: Path) -> None:
    """To what it says of the other target too."""
    gpu, cpu = read_artifact(both_targets).targets
    for view in (gpu, cpu):
        for name in view.entry.own_members:
            view.check_binding(name)
    other = gpu.rebuilt({}, {"notes": ()})
    name = "kernels/portable.so"
    wrong = Artifact(gpu.manifest, {**gpu.members, name: other.members[name]})
    with pytest.raises(ArtifactError, match="not made for this manifest"):
        Session(wrong, 1)


ROWS = torch.randn(3, 24, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def module() -> tuple[CompiledModel, list[str]]:
    """A module compiled for the CPU and for a target that is not saved, and all stages of that."""
    torch.manual_seed(0)
    module, stages = nn.Sequential(BitLinear(24, 40), nn.SiLU()).eval(), list[str]()
    model = mmf.compile(
        module,
        ("reference", CPU),
        example_inputs=(ROWS,),
        check="passes",
        observers=(lambda name, *_: stages.append(name),),
    )
    return model, stages


def test_a_model_is_traced_and_lowered_once(module: tuple[CompiledModel, list[str]]) -> None:
    model, stages = module
    counts = {name: stages.count(name) for name in ("trace", "roll_layers", "check", "emit")}
    assert counts == {"trace": 1, "roll_layers": 1, "check": 2, "emit": 2}
    reference, cpu = model.artifact.targets
    assert (reference.entry.passes, cpu.entry.passes[:1]) == (("own_constants",), ("copy_rows",))
    assert model.artifact.manifest.passes[-2:] == ("group_stages", "roll_layers")


def test_every_target_runs_in_the_process(module: tuple[CompiledModel, list[str]]) -> None:
    model, _ = module
    expected = model(ROWS)
    for kind in ("reference", "cpu"):
        session: Any = Session(model.artifact, target=kind)
        assert torch.equal(session(ROWS), expected)
    again = pickle.loads(pickle.dumps(model))  # with the Program that only the reference needs
    assert torch.equal(again(ROWS), expected)
    assert [view.program is None for view in again.artifact.targets] == [False, True]


def test_explain_says_whose_passes_they_are(module: tuple[CompiledModel, list[str]]) -> None:
    explained = module[0].explain().text(notes=True)
    assert "pack_weights (1), cpu" in explained
    assert explained.count("group_stages (1), program\n") == 1


def test_targets_that_are_not_saved(
    module: tuple[CompiledModel, list[str]], tmp_path: Path
) -> None:
    with pytest.raises(TargetError, match=r"target reference: .*cannot be saved"):
        module[0].save(tmp_path / "model.mmfree")


def test_each_last_program_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong with the second target alone is found."""
    plain = CpuCompiler.passes
    wrong = lambda *given: (DoublesLastScale(), *plain(*given))  # noqa: E731
    monkeypatch.setattr(CpuCompiler, "passes", wrong)
    x = torch.randn(3, 16)
    with pytest.raises(MmfreeError, match="the compiled model: "):
        mmf.compile(BitLinear(16, 16), ("reference", CPU), example_inputs=(x,))


def test_targets_that_cannot_go_together() -> None:
    x = torch.randn(3, 16)
    with pytest.raises(TargetError, match="targets cpu:portable and cpu: are of one kind"):
        mmf.compile(BitLinear(16, 16), (CPU, "cpu"), example_inputs=(x,))
    with pytest.raises(TargetError, match="targets: the list is empty"):
        mmf.compile(BitLinear(16, 16), (), example_inputs=(x,))
    with pytest.raises(InputError, match=r"targets: are several.*Pass one target"):
        mmf.compile(BitLinear(16, 16), (CPU, "reference"), example_inputs=(x,), fallback="eager")
    with pytest.raises(InputError, match="threads: target reference does not take any"):
        mmf.compile(BitLinear(16, 16), ("reference",), example_inputs=(x,), threads=1)


@pytest.mark.parametrize("targets", [3, None, ("cpu", 3), ["cpu:"], [None]])
def test_what_is_not_a_target(targets: Any) -> None:
    with pytest.raises(TargetError, match=r"is not a string|has nothing after the colon"):
        parse_targets(targets)
