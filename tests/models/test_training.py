"""Training: the schedule, exact resumption, interruption, and the held-out measure."""

from __future__ import annotations

import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmfree_compiler.errors import CheckpointError, CorpusError, InputError
from mmfree_compiler.interrupts import uninterrupted
from mmfree_compiler.models import MatMulFreeLM, load_checkpoint, training
from mmfree_compiler.models.corpus import Corpus
from mmfree_compiler.models.tokenizer import END_OF_TEXT_ID, save_byte_tokenizer
from mmfree_compiler.models.train_config import LIMITS, TrainConfig
from mmfree_compiler.models.training import (
    RESUME_FILE,
    Step,
    bits_per_byte,
    learning_rate,
    train,
)

TINY = TrainConfig(
    *(16, 1),
    steps=6,
    batch=2,
    length=8,
    warmup=2,
    evaluate_every=3,
    evaluate_tokens=200,
    save_every=2,
)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus.of([b"the cat sat on the mat. " * 40] * 3)


class Recorder(list[Step]):
    """Keeps what a run reports, and presses Ctrl-C after step `stop`."""

    def __init__(self, stop: int | None = None) -> None:
        self.stop = stop

    def __call__(self, step: Step) -> None:
        self.append(step)
        if step.step == self.stop:
            raise KeyboardInterrupt


def test_the_schedule() -> None:
    config = TrainConfig(steps=1000, warmup=10, learning_rate=1.0)
    rates = [learning_rate(config, step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10] == pytest.approx(1, abs=1e-3)
    assert rates[499] == pytest.approx(0.5, abs=0.01)  # cosine at midway
    assert rates[500] == pytest.approx(0.25, abs=0.01)  # halved from there on
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert 0 <= rates[-1] < 1e-4


def test_a_run_learns_and_leaves_a_checkpoint(tmp_path: Path, corpus: Corpus) -> None:
    steps = Recorder()
    config = replace(TINY, steps=60, learning_rate=0.02, evaluate_every=30)
    train(config, corpus, tmp_path / "run", steps)
    assert [s.step for s in steps] == list(range(1, 61))
    assert [s.step for s in steps if s.held_out is not None] == [30, 60]
    model = load_checkpoint(tmp_path / "run")
    assert model.lm_head.weight.dtype == torch.bfloat16
    assert model.tokenizer_path is not None
    assert bits_per_byte(model, corpus.held_out) < 5  # a uniform guess takes 8


def test_an_interrupted_run_resumes_exactly(tmp_path: Path, corpus: Corpus) -> None:
    whole, first, second = Recorder(), Recorder(stop=3), Recorder()
    one = train(TINY, corpus, tmp_path / "whole", whole)
    with pytest.raises(KeyboardInterrupt):
        train(TINY, corpus, tmp_path / "parts", first)
    two = train(TINY, corpus, tmp_path / "parts", second)
    assert [*first, *second] == whole
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
    history = [(tmp_path / run / "history.json").read_text() for run in ("whole", "parts")]
    assert history[0] == history[1]


def test_what_is_saved_is_said(tmp_path: Path, corpus: Corpus) -> None:
    saves: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        train(TINY, corpus, tmp_path, Recorder(stop=3), saves.append)
    assert saves == [2, 3]
    with pytest.raises(KeyboardInterrupt):  # after the last step, before it is saved
        train(TINY, corpus, tmp_path, Recorder(stop=6), saves.append)
    assert saves == [2, 3, 4, 6]
    train(TINY, corpus, tmp_path, Recorder(), saves.append)
    assert saves == [2, 3, 4, 6]


def test_an_interrupt_while_saving_loses_nothing(
    tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves: list[Path] = []

    def interrupted(path: Path) -> None:
        saves.append(path)
        if len(saves) == 2:
            raise KeyboardInterrupt
        save_byte_tokenizer(path)

    monkeypatch.setattr(training, "save_byte_tokenizer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(TINY, corpus, tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    steps = Recorder()
    train(TINY, corpus, tmp_path / "run", steps)
    assert steps[0].step == 5


def test_a_finished_run_stays_as_it_is(tmp_path: Path, corpus: Corpus) -> None:
    one = train(TINY, corpus, tmp_path, Recorder())
    steps = Recorder()
    two = train(TINY, corpus, tmp_path, steps)
    assert not steps
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)


def test_another_run_is_refused(tmp_path: Path, corpus: Corpus) -> None:
    train(TINY, corpus, tmp_path)
    other = Corpus.of([b"another text " * 100])
    with pytest.raises(CheckpointError, match=r"`seed` was 0 and is 1 now\. Pass the same"):
        train(replace(TINY, seed=1), corpus, tmp_path)
    with pytest.raises(CheckpointError, match="other settings: the text was another"):
        train(TINY, other, tmp_path)
    words = (
        "the text was another, `learning_rate` was 0.003 and is 0.01 now, `steps` was 6 and is 9"
    )
    with pytest.raises(CheckpointError, match=words):
        train(replace(TINY, steps=9, learning_rate=0.01), other, tmp_path)


def test_another_checkpoint_is_not_overwritten(tmp_path: Path, corpus: Corpus) -> None:
    (tmp_path / "model.safetensors").write_text("precious")
    with pytest.raises(CheckpointError, match="another folder"):
        train(TINY, corpus, tmp_path)
    assert (tmp_path / "model.safetensors").read_text() == "precious"


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\x02" + bytes(7) + b"{}"])
def test_a_damaged_run_is_refused(tmp_path: Path, corpus: Corpus, content: bytes) -> None:
    (tmp_path / RESUME_FILE).write_bytes(content)
    with pytest.raises(CheckpointError, match=RESUME_FILE):
        train(TINY, corpus, tmp_path)


def test_a_run_that_is_no_file_is_refused(tmp_path: Path, corpus: Corpus) -> None:
    os.mkfifo(tmp_path / RESUME_FILE)
    with pytest.raises(CheckpointError, match="not a regular file"):
        train(TINY, corpus, tmp_path)


NORM = "model.layers.0.attn_norm.weight"


# What is changed in the file of a run: a tensor (None removes it), or a text.
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (f"model/{NORM}", None, "missing or unexpected model/"),
        (f"model/{NORM}", torch.ones(1), r"of shape \(1,\)"),  # would be broadcast
        (f"model/{NORM}", torch.ones(16).double(), "float64"),
        (f"model/{NORM}", torch.full((16,), torch.nan), "NaN or infinite values in model/"),
        (f"adam/{NORM}/exp_avg", None, "missing or unexpected adam/"),
        (f"adam/{NORM}/exp_avg_sq", torch.full((16,), torch.inf), "NaN or infinite"),
        (f"adam/{NORM}/other", torch.ones(1), "missing or unexpected"),
        ("generator", torch.zeros(3, dtype=torch.uint8), "generator is"),
        ("progress", "", "how far"),
        ("progress", "[1]", "how far"),
        ("progress", '{"step": "3", "history": []}', "how far"),
        ("progress", '{"step": -1, "history": []}', "how far"),
        ("progress", '{"step": 3, "history": [[1, 2]]}', "how far"),
        ("progress", '{"step": 3, "history": [[1, NaN, 2.0]]}', "how far"),
        ("settings", "{}", "other settings: .* and 12 more"),
        ("settings", "[]", "its settings are not a JSON object"),
        ("settings", '{"steps": 6, "steps": 7}', "its settings are names 'steps' twice"),
    ],
)
def test_a_changed_run_is_refused(
    tmp_path: Path, corpus: Corpus, name: str, value: Tensor | str | None, words: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(TINY, corpus, tmp_path, Recorder(stop=3))
    with safe_open(tmp_path / RESUME_FILE, framework="pt") as opened:
        texts = opened.metadata()
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    if isinstance(value, str):
        texts[name] = value
    elif value is None:
        del tensors[name]
    else:
        tensors[name] = value
    save_file(tensors, tmp_path / RESUME_FILE, metadata=texts)
    with pytest.raises(CheckpointError, match=words):
        train(TINY, corpus, tmp_path)


def test_divergence_is_an_error(tmp_path: Path, corpus: Corpus) -> None:
    with pytest.raises(InputError, match="Lower it"):
        train(replace(TINY, steps=50, learning_rate=1e30), corpus, tmp_path)


def test_a_corpus_shorter_than_a_sequence(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"^corpus: too short: 10 held-out tokens for"):
        train(TrainConfig(length=20), Corpus.of([b"short " * 30]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_corpus_is_named_by_its_paths(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"short " * 30)
    corpus = Corpus.read([tmp_path / "text"])
    with pytest.raises(
        CorpusError, match=r"/text: too short: .* of 256\. Give more text, or lower"
    ):
        train(TrainConfig(), corpus, tmp_path / "run")


@pytest.mark.parametrize("output", ["/dev/null/run", "/proc/run", "/proc"])
def test_an_unwritable_folder_is_found_before_the_first_step(output: str, corpus: Corpus) -> None:
    steps = Recorder()
    with pytest.raises(CheckpointError, match=f"^{output}: cannot be written: "):
        train(TINY, corpus, Path(output), steps)
    assert not steps


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("wrong", [-1, math.nan, math.inf, -math.inf, 10**60, "1", None])
def test_wrong_settings(name: str, wrong: object) -> None:
    with pytest.raises(InputError, match=f"{name}: .* Choose at least"):
        replace(TINY, **{name: wrong})  # type: ignore[arg-type]


def test_an_unknown_precision() -> None:
    with pytest.raises(InputError, match="precision: 'int4' is unknown"):
        replace(TINY, precision="int4")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "large", [{"hidden_size": 1_000_000}, {"batch": 1 << 20, "length": 1 << 20}]
)
def test_more_than_the_memory_is_refused(large: dict[str, int], tmp_path: Path) -> None:
    long = torch.zeros(1 << 21, dtype=torch.int16)
    with pytest.raises(InputError, match=r"needs at least \S* GB, this machine has"):
        train(TrainConfig(**large), Corpus(long, long, "digest"), tmp_path)  # type: ignore[arg-type]


def test_ctrl_c_waits_for_the_end_of_a_step() -> None:
    ended = []

    def step() -> None:
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            ended.append(True)

    with pytest.raises(KeyboardInterrupt):
        step()
    assert ended


@pytest.fixture
def model() -> MatMulFreeLM:
    torch.manual_seed(0)
    return training._begin(TINY).model


def test_bits_per_byte_of_a_uniform_model(model: MatMulFreeLM) -> None:
    torch.nn.init.zeros_(model.lm_head.weight)
    tokens = torch.tensor([7] * 9 + [END_OF_TEXT_ID] + [7] * 7)
    # 16 rows of one target each, the end of text being one of them.
    assert bits_per_byte(model, tokens) == pytest.approx(16 / 15 * math.log2(257))


def test_bits_per_byte_carries_the_state(
    model: MatMulFreeLM, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "EVAL_ROWS", 1)
    text = corpus.held_out[:101]
    # A flipped rounding moves a logit a little; a state left behind moves it all.
    assert bits_per_byte(model, text, 7) == pytest.approx(bits_per_byte(model, text, 100), rel=1e-4)
