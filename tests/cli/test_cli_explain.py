"""`mmfree explain` and `mmfree bench --profile`."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest
from invoking import invoke, invoke_json
from typer.testing import CliRunner

from mmfree_compiler.backends.cuda import CudaBackend
from mmfree_compiler.cli.app import app
from mmfree_compiler.errors import TargetError
from mmfree_compiler.explaining import Explanation


def no_gpu_here(_: CudaBackend) -> NoReturn:
    raise TargetError("this machine", "has no NVIDIA GPU", "Use another")


REFERENCE = ("--target", "reference")


def failing(*arguments: str | Path, code: int = 1) -> tuple[str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code
    return result.stdout, " ".join(result.stderr.split())


def test_a_checkpoint_as_text(tiny_checkpoint: Path) -> None:
    text = invoke("explain", tiny_checkpoint, *REFERENCE, "--notes")
    assert "no product of float matrices is left" in text
    assert "reciprocal_1" in text  # one of the notes
    assert re.search(r"a decode step +[\d.,]+ µs measured with \d+ thread", text)
    assert "  - ternary_linear" in text  # ops have times of their own


def test_a_checkpoint_as_json_in_a_file(tiny_checkpoint: Path, tmp_path: Path) -> None:
    file = tmp_path / "explained.json"
    options = (*REFERENCE, "--no-measure", "--format", "json", "-o", file)
    assert invoke("explain", tiny_checkpoint, *options) == ""
    assert Explanation.from_json(file.read_text()).targets[0].target == "reference"


def test_a_comparison_after_every_pass(tiny_checkpoint: Path) -> None:
    found = invoke_json("explain", tiny_checkpoint, *REFERENCE, "--check")
    assert all(step["difference"]["largest"] is not None for step in found["passes"])


def test_a_saved_model(tiny_artifact: Path) -> None:
    text = invoke("explain", tiny_artifact)
    assert text.count("\n\nPasses\n") == 1
    assert "\n\n\n" not in text
    assert "plan_memory" in text
    assert "explain the checkpoint that it was made of" in " ".join(text.split())


def test_a_model_with_a_float_product(tmp_path: Path) -> None:
    """It is explained as far as the passes came; then comes the error."""
    onnx = pytest.importorskip("onnx")
    import numpy as np

    helper = onnx.helper
    rows = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["N", 8]) for n in "xy"]
    weight = onnx.numpy_helper.from_array(np.ones((8, 8), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", rows[:1], rows[1:], [weight]
    )
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "m.onnx")
    text, error = failing("explain", tmp_path / "m.onnx", *REFERENCE)
    assert "1 product of float matrices left: aten.matmul" in text
    assert error.startswith("mmfree: 1 operation: not supported by the target: aten.matmul")
    assert "in node 'y' (MatMul) Write" in error  # no line of this package
    assert "not supported" not in text  # said once
    file = tmp_path / "m.txt"
    text, again = failing("explain", tmp_path / "m.onnx", *REFERENCE, "-o", file)
    assert (text, again) == ("", error)
    assert "Not compiled: 1 operation: not supported by the target" in file.read_text()


def test_options_of_a_compilation_are_not_for_a_saved_model(tiny_artifact: Path) -> None:
    _, error = failing("explain", tiny_artifact, *REFERENCE)
    assert "--target: is for models that are compiled now. Name a checkpoint" in error
    _, error = failing("explain", tiny_artifact, "--check")
    assert "--check: is for models that are compiled now" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("absent",), "absent/config.json: No such file"),
        (("absent.mmfree",), "absent.mmfree: does not exist"),
        (("absent.onnx",), "absent.onnx: "),
        (("absent", "--format", "pdf"), "--format pdf: is unknown. Known: text, json"),
        (("absent", "--format", "html", "--json"), "--json: contradicts --format html"),
        (("absent", "-o", "absent/there.json"), "cannot be written: its folder does not exist"),
        (("absent", "--target", "tpu"), "target 'tpu': is unknown"),
        (("absent", "--target", "reference", "--threads", "1"), "target reference does not take"),
    ],
)
def test_wrong_arguments(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text, error = failing("explain", *arguments)
    assert text == ""
    assert message in error


def test_a_page_is_not_for_a_terminal(tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused before anything is compiled; a pipe takes it."""
    page = ("--no-measure", "--format", "html")
    assert invoke("explain", tiny_artifact, *page).startswith("<!doctype html>")
    terminal = SimpleNamespace(stdout=SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("mmfree_compiler.cli.explain.sys", terminal)
    text, error = failing("explain", "absent", *page)
    assert text == ""
    assert "--format html: is a page for a browser. Name a file: -o page.html" in error


def test_the_profile_of_a_checkpoint(tiny_checkpoint: Path) -> None:
    """A row for each stage; the measured times together are those of the step."""
    found = invoke_json("bench", "--profile", tiny_checkpoint, "--target", "cpu:portable")
    costs = [stage["cost"] for stage in found["program"]["stages"]]
    measured = [cost["measured_us"] for cost in costs]
    assert len(measured) == 6
    assert all(time >= 0 for time in measured)
    assert sum(measured) == pytest.approx(found["decode_us"])
    assert all(cost["roofline_us"] >= 0 for cost in costs)
    assert found["threads"] == 1
    assert all(found["ceilings"][rate] > 0 for rate in found["ceilings"] if rate != "how")


def test_what_has_no_profile(tiny_artifact: Path) -> None:
    _, error = failing("bench", "--profile", tiny_artifact)
    assert "--profile: needs a checkpoint folder" in error
    _, error = failing("bench", "--profile")
    assert "--profile: needs a checkpoint folder" in error


def test_a_profile_without_hardware_is_refused_before_compiling(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmfree_compiler.compiler.compile", None)
    monkeypatch.setattr(CudaBackend, "here", no_gpu_here)
    _, error = failing("bench", "--profile", tiny_checkpoint, "--target", "cuda")
    assert "this machine: has no NVIDIA GPU" in error


def test_the_profile_of_a_cycle_model(tiny_checkpoint: Path) -> None:
    text = invoke("bench", "--profile", tiny_checkpoint, "--target", "fpga:kv260")
    assert re.search(r"a decode step +[\d.,]+ µs by the cycle model at 250 MHz, at least", text)
    assert "measured" not in text
