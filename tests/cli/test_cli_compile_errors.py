"""What `mmfree compile` and others say of paths and targets that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_said import assert_one_line, invoke

from mmfree_compiler import models


def test_compile_to_an_unknown_target(tiny_checkpoint: Path, tmp_path: Path) -> None:
    said = invoke("compile", tiny_checkpoint, "-o", tmp_path / "m", "--target", "tpu")
    assert_one_line(said, "tpu", "Known: cpu")
    assert list(tmp_path.iterdir()) == []


def test_compile_of_a_missing_checkpoint(tmp_path: Path) -> None:
    said = invoke("compile", tmp_path / "nowhere", "-o", tmp_path / "m")
    assert_one_line(said, "nowhere", "config.json")
    assert list(tmp_path.iterdir()) == []


def test_compile_into_a_missing_folder(tiny_checkpoint: Path, tmp_path: Path) -> None:
    said = invoke("compile", tiny_checkpoint, "-o", tmp_path / "nowhere" / "m")
    assert_one_line(said, "its folder does not exist")
    assert_one_line(invoke("compile", tiny_checkpoint, "-o", tmp_path), "is a folder")


@pytest.mark.parametrize(
    ("output", "cause"),
    [
        ("a" * 300, "File name too long"),
        ("/dev/null", "is not a regular file"),
        ("/proc/model.mmfree", "cannot be written"),
    ],
)
def test_an_unwritable_output_is_reported_before_the_work(
    output: str, cause: str, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmfree_compiler.models.load_checkpoint", None)
    assert_one_line(invoke("compile", tiny_checkpoint, "-o", output), cause)


def test_names_that_are_too_long(tiny_checkpoint: Path, tmp_path: Path) -> None:
    text, long = tmp_path / "text", "a" * 300
    text.write_text("text " * 2000)
    for command in (
        ("train", text, "-o", tmp_path / long),
        ("train", text, "-o", tmp_path / long, "--resume"),
        ("train", long, "-o", tmp_path / "run"),
        ("import-bin", long),
        ("inspect", long),
        ("verify", long, "--against", tiny_checkpoint),
    ):
        said = invoke(*command)
        assert_one_line(said, long)
        assert "too long" in said[2] or "does not exist" in said[2]


def test_what_cannot_be_saved_is_not_compiled(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "load_checkpoint", lambda _: pytest.fail("in vain"))
    said = invoke("compile", tiny_checkpoint, "-o", tmp_path / "a", "--target", "reference")
    assert_one_line(said, "cannot be saved")


def test_the_reference_target_cannot_be_saved(tiny_checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "m"
    said = invoke("compile", tiny_checkpoint, "-o", output, "--target", "reference")
    assert_one_line(said, "cannot be saved")
    assert list(tmp_path.iterdir()) == []


def test_compile_with_an_unknown_check(tmp_path: Path) -> None:
    """Before the checkpoint is read."""
    said = invoke("compile", tmp_path / "nowhere", "-o", tmp_path / "m", "--check", "all")
    assert_one_line(said, "check 'all': is unknown. Known: module, passes, none")


def test_compile_of_an_unknown_density(tiny_checkpoint: Path, tmp_path: Path) -> None:
    options = ("-o", tmp_path / "m", "--target", "cpu:density=3")
    said = invoke("compile", tiny_checkpoint, *options)
    assert_one_line(said, "target 'cpu:density=3'", "unknown density '3'", "Known: auto, 2, 1.6")
    assert list(tmp_path.iterdir()) == []
