"""Mutated files and command lines: each is refused with a clear error, or changes nothing."""

from __future__ import annotations

import random
import tempfile
import traceback
import warnings
from pathlib import Path

import torch

from fuzz import attacks_on_artifacts, attacks_on_checkpoints, attacks_on_commands
from fuzz.attempt import Attack, Attempt
from fuzz.report import main
from fuzz.samples import samples
from fuzz.workers import Verdict
from mmfree_compiler.errors import MmfreeError

COUNT, LIMIT_S = 20_000, 240
Attacks = dict[str, tuple[float, Attack]]
# Name -> how often it is chosen, and the attack.
ATTACKS: Attacks = {
    **attacks_on_artifacts.ATTACKS,
    **attacks_on_checkpoints.ATTACKS,
    **attacks_on_commands.ATTACKS,
}


def judge(number: int, attacks: Attacks = ATTACKS) -> Verdict:
    """The outcome of the attack of that number."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        name, attempt = _attempt(number, Path(folder), attacks)
        try:
            outcome, detail = attempt.use(), attempt.change
        except MmfreeError as error:
            outcome = "refused" if str(error).replace("\n", "").isprintable() else "wrong"
            detail = f"{type(error).__name__}: {error}"
        except BaseException:  # a panic of Rust code is not an Exception
            outcome, detail = "foreign", traceback.format_exc(limit=-4)
    return Verdict(outcome, detail, (name,))


def show(number: int, attacks: Attacks = ATTACKS, script: str = "mutations") -> str:
    """What the attack changes, and the command that repeats it."""
    with tempfile.TemporaryDirectory() as folder:
        name, attempt = _attempt(number, Path(folder), attacks)
    return f"{name}: {attempt.change}\npython -m fuzz.{script} --case {number}"


def _attempt(number: int, folder: Path, attacks: Attacks) -> tuple[str, Attempt]:
    rng = random.Random(number)
    (name,) = rng.choices(list(attacks), [often for often, _ in attacks.values()])
    return name, attacks[name][1](rng, folder)


if __name__ == "__main__":
    samples()
    main(judge, show, COUNT, LIMIT_S)
