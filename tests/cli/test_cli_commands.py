"""Every command on a tiny model: what it prints to people and to machines."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from invoking import invoke, invoke_json
from typer.testing import CliRunner

import mmfree_compiler as mmf
from mmfree_compiler import tune
from mmfree_compiler.backends.cpu import features
from mmfree_compiler.backends.cpu.compile.compiler import CpuCompiler
from mmfree_compiler.backends.cpu.compile.tuning import CANDIDATES
from mmfree_compiler.backends.cpu.run.launcher import CpuLauncher
from mmfree_compiler.cli.app import app
from mmfree_compiler.cli.measure import Spread, peak_rss
from mmfree_compiler.cli.run import run
from mmfree_compiler.cli.train import train
from mmfree_compiler.interrupts import Interrupted
from mmfree_compiler.models import training
from mmfree_compiler.models.train_config import TrainConfig
from mmfree_compiler.runtime import Sampling, load


def test_version() -> None:
    assert invoke("--version") == f"{mmf.__version__}\n"


def test_compile(tiny_checkpoint: Path, tiny_artifact: Path, tmp_path: Path) -> None:
    output = tmp_path / "again.mmfree"
    options = ("-o", output, "--target", "cpu:portable", "--check", "passes")
    found = invoke_json("compile", tiny_checkpoint, *options)
    assert list(found["seconds"]) == ["load", "trace", "passes", "check", "codegen", "save"]
    assert found["targets"] == {"cpu:portable": ["portable"]}
    assert found["artifact_bytes"] == output.stat().st_size
    assert output.read_bytes() == tiny_artifact.read_bytes()


def test_quiet_commands_print_what_they_found(tiny_checkpoint: Path, tmp_path: Path) -> None:
    output, text = tmp_path / "a.mmfree", tmp_path / "text"
    text.write_bytes(b"spam and eggs, " * 200)
    options = ("-o", output, "--target", "cpu:portable", "--check", "none", "-q")
    assert invoke("compile", tiny_checkpoint, *options) == ""
    assert invoke("train", text, "-o", tmp_path / "c", *TRAIN, "-q") == ""
    assert (tmp_path / "c" / "model.safetensors").exists()
    bench = ("bench", output, "--prompt-tokens", "1", "--new-tokens", "2", "--quiet")
    assert "decode tokens/s" in invoke(*bench)


def test_tune(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "SAMPLE_SECONDS", 0.0)
    monkeypatch.setattr(tune, "ROUNDS", 1)
    for name, values in {"prefetch": (32, 128), "tokens": ()}.items():
        monkeypatch.setitem(CANDIDATES, name, values)
    monkeypatch.setattr(CpuCompiler, "keep", lambda *_: None)  # for the other tests
    monkeypatch.setattr(features, "cpu_features", frozenset)  # kernels as in tiny_artifact
    found = invoke_json("tune", tiny_checkpoint, "--threads", "1")
    assert (found["target"], found["build"]) == ("cpu:portable", "portable")
    assert found["settings"].keys() == {"prefetch", "tokens"}
    assert {"setting", "value", "gain"} == found["trials"][0].keys()
    text = invoke("tune", tiny_checkpoint, "--threads", "1")
    assert "prefetch" in text
    assert "portable" in text


RUN = ("--prompt", "def ", "--max-new-tokens", "12", "--seed", "3", "--threads", "1")


def test_run_prints_what_the_session_generates(tiny_artifact: Path) -> None:
    generation = load(tiny_artifact, 1).generate("def ", max_new_tokens=12, seed=3)
    text = "".join(token.text for token in generation)
    assert invoke("run", tiny_artifact, *RUN) == f"def {text}\n"
    assert invoke("run", tiny_artifact, *RUN, "-q") == f"{text}\n"
    found = invoke_json("run", tiny_artifact, *RUN)
    assert (found["text"], found["tokens"]) == (text, generation.ids)
    assert found["finish_reason"] == "length"
    assert found["stats"]["prompt_tokens"] == 4


def test_run_settings_reach_the_sampler(tiny_artifact: Path) -> None:
    expected = load(tiny_artifact, 1).generate(
        "def ", max_new_tokens=12, temperature=0.5, top_k=9, top_p=0.7, repetition_penalty=2, seed=3
    )
    tokens = [token.id for token in expected]
    options = ("--temperature", "0.5", "--top-k", "9", "--top-p", "0.7")
    found = invoke_json("run", tiny_artifact, *RUN, *options, "--repetition-penalty", "2")
    assert found["tokens"] == tokens


def shared_defaults(command: Any, settings: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Defaults of the options that are fields of the dataclass `settings`, in both."""
    fields = {field.name: field.default for field in dataclasses.fields(settings)}
    options = inspect.signature(command).parameters
    names = fields.keys() & options.keys()
    return {n: options[n].default for n in names}, {n: fields[n] for n in names}


def test_run_has_the_defaults_of_a_session() -> None:
    options, fields = shared_defaults(run, Sampling)
    assert {f.name for f in dataclasses.fields(Sampling)} - fields.keys() == {"stop_tokens"}
    assert options | {"stop": ()} == fields  # typer has None for an option that may be repeated


def test_run_stops_at_a_text(tiny_artifact: Path) -> None:
    text = invoke_json("run", tiny_artifact, *RUN)["text"]
    stop = text[3:5]
    found = invoke_json("run", tiny_artifact, *RUN, "--stop", "never", "--stop", stop)
    assert found["text"] == text[: text.index(stop)]
    assert found["finish_reason"] == "stop_string"


def test_run_reads_stdin(tiny_artifact: Path) -> None:
    arguments = ["run", str(tiny_artifact), "--prompt", "-", *RUN[2:]]
    result = CliRunner().invoke(app, arguments, input="def ")
    assert result.stdout == invoke("run", tiny_artifact, *RUN)


def test_run_prints_statistics_on_stderr(tiny_artifact: Path) -> None:
    result = CliRunner().invoke(app, ["run", str(tiny_artifact), *RUN, "--stats"])
    assert result.stdout == invoke("run", tiny_artifact, *RUN)
    assert all(word in result.stderr for word in ("prefill", "decode", "peak memory"))


def test_run_of_one_token_has_no_decode_speed(tiny_artifact: Path) -> None:
    options = (*RUN[:2], "--max-new-tokens", "1", "--threads", "1")
    found = invoke_json("run", tiny_artifact, *options)
    assert found["stats"]["decode_tokens_per_second"] is None


VERIFY = ("--tokens", "150", "--threads", "1")


def test_verify_on_the_text_that_every_python_carries(
    tiny_artifact: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmfree_compiler.models import corpus

    monkeypatch.setattr(corpus, "_standard_modules", list)  # reading them all takes seconds
    found = invoke_json("verify", tiny_artifact, "--against", tiny_checkpoint, *VERIFY)
    assert found["passed"] is True
    assert found["tokens"] == 150  # as many as were asked for
    # Codes that flip on rounding edges are rare: other weights diverge a thousand times as much.
    assert found["kl_mean"] < 1e-4


def test_verify_against_another_model(tiny_artifact: Path, tmp_path: Path) -> None:
    from mmfree_compiler.models import ModelConfig, random_checkpoint

    other = tmp_path / "other"
    random_checkpoint(other, ModelConfig.of(64, 2, 257, initializer_range=2.0), seed=1)
    text = tmp_path / "text"
    text.write_text("All that is gold does not glitter. " * 5)
    arguments = ("verify", tiny_artifact, "--against", other, "--text", text, *VERIFY)
    found = invoke_json(*arguments, code=1)
    assert found["passed"] is False
    assert found["kl_mean"] > 1e-3
    assert "NOT the same model" in invoke(*arguments, code=1)


def test_verify_of_a_model_that_gives_nan(
    tiny_artifact: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmfree_compiler import verify

    report = verify.Report(9, math.nan, math.nan, 0, math.inf, 2)
    monkeypatch.setattr(verify, "verify", lambda *_: report)
    text = tmp_path / "text"
    text.write_text("spam")
    arguments = ("verify", tiny_artifact, "--against", tiny_checkpoint, "--text", text)
    found = invoke_json(*arguments, code=1)
    assert [found[name] for name in ("kl_mean", "kl_max", "perplexity", "ratio")] == [None] * 4
    assert (found["top1_agreement"], found["passed"]) == (0, False)
    assert "top-1 agreement   0.000%" in invoke(*arguments, code=1)


TRAIN = ("--hidden-size", "32", "--layers", "1", "--batch", "2", "--length", "16", "--steps", "2")


def test_train(tmp_path: Path) -> None:
    text, output = tmp_path / "text", tmp_path / "checkpoint"
    text.write_bytes(b"spam and eggs, " * 200)
    arguments = ("train", text, "-o", output, *TRAIN, "--threads", "1")
    found = invoke_json(*arguments)
    assert found["steps"] == 2
    assert 0 < found["loss"] < 10
    assert 0 < found["held_out_bits_per_byte"] < 20
    assert (output / "model.safetensors").exists()
    text_output = invoke(*arguments[:2], "-o", tmp_path / "other", *TRAIN, "--threads", "1")
    assert re.search(r"loss +\d\.\d{1,3} *\n", text_output)  # not 16 digits
    refused = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert refused.exit_code == 1
    assert "--resume" in refused.stderr
    other = CliRunner().invoke(app, [*map(str, arguments), "--resume", "--steps", "4", "--lr", "1"])
    assert other.exit_code == 1
    words = "settings: --learning-rate was 0.003 and is 1 now, --steps was 2 and is 4 now. Pass"
    assert words in other.stderr


def test_resuming_a_complete_run(tmp_path: Path) -> None:
    text, output = tmp_path / "text", tmp_path / "checkpoint"
    text.write_bytes(b"spam and eggs, " * 200)
    arguments = [*map(str, ("train", text, "-o", output, *TRAIN))]
    invoke(*arguments)
    again = CliRunner().invoke(app, [*arguments, "--resume"])
    words = f"mmfree: {output} is complete after 2 steps; to train longer, begin in another folder,"
    assert (again.exit_code, again.stderr) == (0, f"{words} with more --steps\n")
    assert "tokens per second" not in again.stdout
    found = invoke_json(*arguments, "--resume")
    assert (found["checkpoint"], found["steps"]) == (str(output), None)
    quiet = CliRunner().invoke(app, [*arguments, "--resume", "-q"])
    assert (quiet.exit_code, quiet.output) == (0, "")


@pytest.mark.parametrize(
    ("step", "words"), [(2, "saved at step 2, --resume continues"), (None, "before the first step")]
)
def test_an_interrupted_training_says_what_was_saved(
    step: int | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any) -> None:
        if step is not None:
            arguments[-1](step)
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(training, "train", interrupted)
    (tmp_path / "text").write_bytes(b"spam and eggs, " * 200)
    result = CliRunner().invoke(app, ["train", f"{tmp_path}/text", "-o", f"{tmp_path}/c", *TRAIN])
    assert (result.exit_code, result.stdout) == (143, "")
    assert words in result.stderr


def test_train_has_the_defaults_of_its_configuration() -> None:
    options, fields = shared_defaults(train, TrainConfig)
    assert len(options) == 7
    assert options == fields


def test_train_without_a_run_to_resume(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_bytes(b"spam and eggs, " * 200)
    invoke("train", text, "-o", tmp_path / "checkpoint", *TRAIN, "--resume", code=1)


def test_bench(tiny_artifact: Path) -> None:
    options = ("--prompt-tokens", "70", "--new-tokens", "3", "--threads", "1,2")
    found = invoke_json("bench", tiny_artifact, *options)
    assert (found["build"], found["device_bytes"]) == ("portable", None)
    assert (
        found["packed_weight_bytes"]
        == invoke_json("inspect", tiny_artifact)["bytes"]["packed ternary"]
    )
    assert [figures["threads"] for figures in found["threads"]] == [1, 2]
    for figures in found["threads"]:
        for name in ("prefill_tokens_per_second", "decode_tokens_per_second"):
            assert 0 < figures[name]["low"] <= figures[name]["median"] <= figures[name]["high"]


def test_bench_for_people(tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--prompt-tokens", "1", "--new-tokens", "2", "--threads", "1,2")
    text = invoke("bench", tiny_artifact, *options)
    assert "memory of the device" not in text
    monkeypatch.setattr(CpuLauncher, "device_bytes", 7_000_000, raising=False)
    text = invoke("bench", tiny_artifact, *options)
    assert re.search(r"memory of the device +7.0 MB", text)
    assert "1 prompt token, 2 new tokens, 5 runs" in text
    assert "decode tokens/s, 1 thread " in text
    assert "decode tokens/s, 2 threads" in text


def test_bench_wants_enough_runs(tiny_artifact: Path) -> None:
    invoke("bench", tiny_artifact, "--repeat", "4", code=2)


def test_spread() -> None:
    assert Spread.of([3, 1, 2, 10]) == Spread(2.5, 1, 10)


def test_peak_memory_is_this_process() -> None:
    before = peak_rss()
    block = bytearray(1 << 26)
    block[::4096] = b"x" * math.ceil(len(block) / 4096)
    # Peaks only grow, and by what was touched, unless an earlier test had used as much.
    assert before <= peak_rss() <= before + 2 * len(block)
