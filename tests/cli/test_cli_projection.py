"""`mmfree bench` where the target's hardware is simulated."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path

import cli_said
import pytest
from cli_said import assert_one_line
from invoking import invoke, invoke_json

from mmfree_compiler import compiler, scaled

SHAPE = ("bench", "--target", "fpga:kv260", "--shape", "370M")


@pytest.fixture(scope="module", autouse=True)
def traced_once() -> Iterator[None]:
    """The programs of shapes, which all these tests ask for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scaled, "program_of", cache(scaled.program_of))
        yield


def test_a_shape() -> None:
    found = invoke_json(*SHAPE)
    assert found["machine"].startswith("AMD Kria KV260")
    figures = {f["name"]: f for f in found["figures"]}
    assert figures["time"]["origin"] == "projected"
    assert figures["ternary weights"]["origin"] == "derived"
    assert figures["matmulfree_KRIA on a KRIA board"]["origin"] == "measured"
    cycles, speed = figures["cycles"]["value"], figures["speed"]["value"]
    assert cycles * speed == pytest.approx(250e6)
    for shares in found["units"].values():
        assert sum(shares.values()) == pytest.approx(1)


def test_a_shape_for_people() -> None:
    text = invoke(*SHAPE)
    for word in ("tokens/s", "projected", "derived", "measured", "waits", "█"):
        assert word in text


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_an_image(suffix: str, tmp_path: Path) -> None:
    image = tmp_path / f"token{suffix}"
    invoke(*SHAPE, "--gantt", image)
    start = {".svg": b"<?xml", ".png": b"\x89PNG"}[suffix]
    assert image.read_bytes().startswith(start)


def test_an_image_that_is_not_drawn_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "token.svg"
    image.write_text("old")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert_one_line(
        cli_said.invoke(*SHAPE, "--gantt", image),
        "--gantt: needs matplotlib",
        "pip install 'mmfree-compiler[plot]'",
    )
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_the_title_of_a_board_is_text(tmp_path: Path) -> None:
    """Neither markup nor a command to the terminal."""
    board = tmp_path / "own.toml"
    known = files("mmfree_compiler.backends.fpga").joinpath("boards/kv260.toml").read_text("utf-8")
    board.write_text(known.replace('title = "', 'title = "[/x]\\u001b[2J[red]'))
    text = invoke("bench", "--target", f"fpga:{board}", "--shape", "370M")
    assert text.startswith("[/x]\\x1b[2J[red]AMD Kria")


def test_a_model(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """What a file says is what its shape would."""
    path = tmp_path / "model.mmfree"
    compiler.compile(tiny_checkpoint, "fpga:ecp5-85", check=False).save(path)
    found = invoke_json("bench", path)
    names = [figure["name"] for figure in found["figures"]]
    assert "cycles" in names
    assert "the paper's estimate (arXiv 2406.02528)" not in names


def test_what_is_refused(tiny_artifact: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "no" / "image.svg"
    for arguments, words in {
        ("bench",): "bench: takes either a model or a --shape",
        ("bench", tiny_artifact, "--shape", "370M"): "takes either a model or a --shape",
        ("bench", "--shape", "370M"): "--shape: needs a --target",
        ("bench", "--shape", "9B", "--target", "fpga"): "--shape 9B: is unknown. Known: 370M",
        ("bench", "--shape", "370M", "--target", "cpu"): "target cpu: has no model of its hardware",
        ("bench", tiny_artifact, "--gantt", "a.svg"): "--gantt: draws projections",
        (*SHAPE, "--gantt", nowhere): "cannot be written: its folder does not exist",
        (*SHAPE, "--gantt", tmp_path): "is not the name of an image. Name a file that ends in .svg",
    }.items():
        assert_one_line(cli_said.invoke(*arguments), words)
