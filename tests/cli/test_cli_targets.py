"""Commands with a file of several targets."""

from __future__ import annotations

import re
from pathlib import Path

import cli_said
import pytest
from cli_said import assert_one_line
from invoking import invoke, invoke_json
from no_gpu import without_a_gpu

from mmfree_compiler import compiler
from mmfree_compiler.artifact import read_artifact
from mmfree_compiler.compiled_model import CompiledModel
from mmfree_compiler.errors import TargetError
from mmfree_compiler.target import Target
from mmfree_compiler.tune import tune

__all__ = ["without_a_gpu"]
RUN = ("--prompt", "def ", "--max-new-tokens", "5", "--seed", "3", "--threads", "1")


def test_compile(
    both_targets: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--target` may be repeated; what is compiled is in tests/test_targets.py."""
    asked = []

    def compiled(_: object, targets: object, **__: object) -> CompiledModel:
        asked.append(targets)
        return CompiledModel(read_artifact(both_targets))

    monkeypatch.setattr(compiler, "compile", compiled)
    targets = ("--target", "cuda:sm_80", "--target", "cpu:portable")
    output = tmp_path / "model.mmfree"
    said = invoke_json("compile", tiny_checkpoint, "-o", output, *targets)
    assert said["targets"] == {"cuda:sm_80": ["sm_80"], "cpu:portable": ["portable"]}
    assert asked == [(Target("cuda", "sm_80"), Target("cpu", "portable"))]
    assert output.read_bytes() == both_targets.read_bytes()


def test_inspect_shows_each_target(both_targets: Path, tiny_artifact: Path) -> None:
    found, single = (
        invoke_json("inspect", both_targets, "--notes"),
        invoke_json("inspect", tiny_artifact),
    )
    gpu, cpu = found["targets"]
    assert (gpu["target"], cpu["target"]) == ("cuda:sm_80", "cpu:portable")
    assert "finish_outputs" in gpu["passes"]
    assert {k: v for k, v in cpu.items() if k != "builds"} == {
        k: v for k, v in single["targets"][0].items() if k != "builds"
    }
    for name in ("parameters", "ternary_parameters", "fingerprint", "passes", "layers"):
        assert found[name] == single[name]
    assert sum(found["bytes"].values()) == found["file_bytes"] == both_targets.stat().st_size
    assert found["bytes"]["embedding"] == single["bytes"]["embedding"]
    assert found["bytes"]["packed ternary"] > 1.9 * single["bytes"]["packed ternary"]
    assert {"cuda: pack_weights", "cpu: pack_weights"} <= {note[0] for note in found["notes"]}
    shown = invoke("inspect", both_targets)
    assert [line.rstrip() for line in shown.splitlines() if line.startswith("Target ")] == [
        "Target cuda:sm_80",
        "Target cpu:portable",
    ]
    assert re.search(r"read by cuda:sm_80 .*\nread by cpu:portable ", shown)


def test_run_says_what_runs_and_why(both_targets: Path, tiny_artifact: Path) -> None:
    found, single = invoke_json("run", both_targets, *RUN), invoke_json("run", tiny_artifact, *RUN)
    assert found["text"] == single["text"]
    stats = found["stats"]
    assert (stats["target"], stats["build"]) == ("cpu", "portable")
    assert stats["refused"] == {"cuda:sm_80": "this machine: has no GPU"}
    _, _, said = cli_said.invoke("run", both_targets, *RUN, "--stats")
    target = r"target +cpu, build portable *\n"
    assert re.search(target + "not cuda:sm_80 +this machine: has no GPU", said)


@pytest.mark.parametrize(
    "command",
    [
        ("run", "--prompt", "a", "--max-new-tokens", "1"),
        ("bench", "--prompt-tokens", "1", "--new-tokens", "2"),
        ("verify", "--against", "{path}", "--tokens", "8"),
    ],
    ids=lambda command: command[0],
)
def test_a_target_chosen_by_hand(both_targets: Path, command: tuple[str, ...]) -> None:
    name, *options = (part.format(path=both_targets) for part in command)
    assert invoke_json(name, both_targets, *options, "--target", "cpu")
    said = cli_said.invoke(name, both_targets, *options, "--target", "cuda")
    assert_one_line(said, "mmfree: this machine: has no GPU. Buy one")
    said = cli_said.invoke(name, both_targets, *options, "--target", "reference")
    known = "It has: cuda:sm_80, cpu:portable"
    assert_one_line(said, f"target 'reference': is not in the model. {known}")


def test_tuning_is_for_a_checkpoint_and_one_target(both_targets: Path) -> None:
    said = cli_said.invoke("tune", both_targets, "--target", "cpu")
    assert_one_line(said, "both.mmfree: is a file, not a checkpoint folder. Name the folder")
    with pytest.raises(TargetError, match=r"target \['reference', 'cpu'\]: is not a string"):
        tune(both_targets, ["reference", "cpu"])  # type: ignore[arg-type]


def test_targets_that_cannot_go_together(tiny_checkpoint: Path, tmp_path: Path) -> None:
    targets = ("--target", "cpu:portable", "--target", "cpu")
    said = cli_said.invoke("compile", tiny_checkpoint, "-o", tmp_path / "m", *targets)
    assert_one_line(said, "targets cpu:portable and cpu: are of one kind. Name the options of cpu")
    assert not list(tmp_path.iterdir())
