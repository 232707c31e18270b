"""Training a byte-level MatMul-free LM with straight-through estimators and AdamW."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mmfree_compiler.errors import CheckpointError, CorpusError, InputError
from mmfree_compiler.interrupts import uninterrupted
from mmfree_compiler.models.checkpoint import TOKENIZER, write_checkpoint
from mmfree_compiler.models.corpus import Corpus
from mmfree_compiler.models.files import check_writable, staged
from mmfree_compiler.models.initial import initialize
from mmfree_compiler.models.lm import MatMulFreeLM, State
from mmfree_compiler.models.resume import CORPUS, Run
from mmfree_compiler.models.tokenizer import END_OF_TEXT_ID, save_byte_tokenizer
from mmfree_compiler.models.train_config import TrainConfig, check_memory
from mmfree_compiler.models.weight_files import WEIGHTS
from mmfree_compiler.wording import counted

RESUME_FILE = "training.safetensors"
DECAYING = "proj.weight"  # the end of the names of the parameters that decay
EVAL_ROWS = 16  # held-out text is read as a batch of this many rows, each from a zero state


@dataclass(frozen=True)
class Step:
    """Progress after step `step` of `steps`: `loss` in nats per token."""

    step: int
    steps: int
    loss: float
    learning_rate: float
    held_out: float | None  # bits per byte; None on steps without a measurement


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warmup, then cosine decay, halved from midway on (arXiv 2406.02528)."""
    warmup = min(1.0, (step + 1) / max(1, config.warmup))
    progress = step / config.steps
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    factor = 0.5 if progress >= 0.5 else 1.0
    return config.learning_rate * warmup * cosine * factor


def train(
    config: TrainConfig,
    corpus: Corpus,
    output: Path,
    on_step: Callable[[Step], None] = lambda _: None,
    on_save: Callable[[int], None] = lambda _: None,
) -> MatMulFreeLM:
    """Train until `config.steps`; a run that `output` holds is resumed exactly.

    `output` becomes a checkpoint folder (bf16) with its tokenizer, `history.json` and the state to
    resume from, written every `save_every` steps, at the end, and on KeyboardInterrupt; `on_save`
    is then called with the number of steps done. Raises CorpusError on a corpus shorter than a
    sequence, InputError on a model too large for this machine's memory, CheckpointError when
    `output` cannot be written, or holds another checkpoint, a damaged run, or one with other
    settings or another corpus.
    """
    _check_length(config, corpus)
    check_memory(config)
    check_writable(output)  # fail now, not at the first save
    run = _begin(config)
    settings = asdict(config) | {CORPUS: corpus.digest}
    if (output / RESUME_FILE).exists():
        run.load(output / RESUME_FILE, settings)
    elif (output / WEIGHTS).exists():
        raise CheckpointError(str(output), "holds a checkpoint", "Train into another folder")
    saved = run.step

    def save() -> None:
        nonlocal saved
        _save(run, settings, output)
        saved = run.step
        on_save(saved)

    try:
        while run.step < config.steps:
            with uninterrupted():
                done = _step(run, config, corpus)
            on_step(done)
            if run.step % config.save_every == 0 or run.step == config.steps:
                save()
    except KeyboardInterrupt:
        if run.step > saved:
            save()
        raise
    return run.model


def _check_length(config: TrainConfig, corpus: Corpus) -> None:
    """Raise CorpusError unless both sides of the split have more tokens than a sequence."""
    for side, tokens in (("training", corpus.train), ("held-out", corpus.held_out)):
        if len(tokens) <= config.length:
            cause = f"too short: {counted(len(tokens), f'{side} token')} for sequences of "
            hint = "Give more text, or lower `length`"
            raise CorpusError(corpus.name, f"{cause}{config.length:,}", hint)


def _begin(config: TrainConfig) -> Run:
    """A new run; norms, embeddings and the head do not decay."""
    model = MatMulFreeLM(config.model)
    initialize(model, config.seed)
    named = list(model.named_parameters())
    groups = [
        {"params": [p for name, p in named if not name.endswith(DECAYING)], "weight_decay": 0.0},
        {
            "params": [p for name, p in named if name.endswith(DECAYING)],
            "weight_decay": config.weight_decay,
        },
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True)
    return Run(model, optimizer, torch.Generator().manual_seed(config.seed))


def _save(run: Run, settings: Mapping[str, object], output: Path) -> None:
    """Write the checkpoint and the state to resume from."""
    with staged(output) as folder:
        write_checkpoint(run.model, folder, torch.bfloat16)
        save_byte_tokenizer(folder / TOKENIZER)
        (folder / "history.json").write_text(json.dumps(run.history) + "\n")
        run.save(folder / RESUME_FILE, settings)


def _step(run: Run, config: TrainConfig, corpus: Corpus) -> Step:
    """One optimizer step on random crops and, when it is due, a held-out measurement."""
    rate = learning_rate(config, run.step)
    loss = _loss(run, config, corpus.train)
    if not loss.isfinite():
        cause = f"makes the loss {loss.item()} at step {run.step}"
        raise InputError(f"learning_rate {config.learning_rate}", cause, "Lower it")
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), config.clip)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    run.optimizer.step()
    run.optimizer.zero_grad()
    run.step += 1
    held_out = None
    if run.step % config.evaluate_every == 0 or run.step == config.steps:
        held_out = bits_per_byte(run.model, corpus.held_out[: config.evaluate_tokens])
        run.history.append([run.step, loss.item(), held_out])
    return Step(run.step, config.steps, loss.item(), rate, held_out)


def _loss(run: Run, config: TrainConfig, tokens: Tensor) -> Tensor:
    """Mean cross-entropy of `batch` random crops, in nats per token."""
    starts = torch.randint(len(tokens) - config.length, (config.batch, 1), generator=run.generator)
    crops = tokens[starts + torch.arange(config.length + 1)].long()
    with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bfloat16"):
        logits, _ = run.model(crops[:, :-1])
    return F.cross_entropy(logits.float().flatten(0, 1), crops[:, 1:].flatten())


@torch.no_grad()
def bits_per_byte(model: MatMulFreeLM, tokens: Tensor, length: int = 256) -> float:
    """Bits per byte of text that `model` needs to predict `tokens` (N,), end-of-text included.

    The text is read as EVAL_ROWS consecutive rows, `length` tokens per call, the state carried
    along.
    """
    tokens = tokens.long()
    rows = max(1, min(EVAL_ROWS, len(tokens) // 2))
    columns = (len(tokens) - 1) // rows
    inputs = tokens[: rows * columns].view(rows, columns)
    targets = tokens[1 : rows * columns + 1].view(rows, columns)
    nats = 0.0
    state: State | None = None
    for start in range(0, columns, length):
        part = slice(start, start + length)
        logits, state = model(inputs[:, part], state)
        wanted = targets[:, part].flatten()
        nats += F.cross_entropy(logits.flatten(0, 1), wanted, reduction="sum").item()
    return nats / math.log(2) / int((targets != END_OF_TEXT_ID).sum())
