"""`mmfree disasm`."""

from __future__ import annotations

from pathlib import Path

import cli_said
import pytest
from cli_said import assert_one_line
from invoking import invoke, invoke_json

from mmfree_compiler import compiler
from mmfree_compiler.backends.fpga.isa.assembly import assemble
from mmfree_compiler.backends.fpga.isa.encoding import encode_program


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fpga") / "model.mmfree"
    compiler.compile(tiny_checkpoint, "fpga:kv260").save(path)
    return path


def test_all_programs(model: Path) -> None:
    programs = invoke_json("disasm", model)["programs"]
    assert list(programs) == ["forward", "advance", "decode"]
    for text in programs.values():
        assert text.count("loop") == text.count("next")
        assert len(encode_program(assemble(text))) % 16 == 0
    assert "argmax" in programs["decode"]
    assert "argmax" not in programs["forward"]


def test_one_program(model: Path) -> None:
    text = invoke("disasm", model, "--program", "decode")
    assert text.startswith("# decode\n")
    assert "# forward" not in text
    assert "  product " in text
    assert encode_program(assemble(text))  # no line is wrapped
    said = cli_said.invoke("disasm", model, "--program", "other")
    assert_one_line(said, "--program other: is not a program", "Known: forward, advance, decode")


def test_a_model_without_instructions(
    tiny_artifact: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    onnx = tmp_path / "model.onnx"
    compiler.compile(tiny_checkpoint, "onnx", check=False).save(onnx)
    for path in (tiny_artifact, onnx):
        said = cli_said.invoke("disasm", path)
        assert_one_line(said, "has no target with instructions to show")
