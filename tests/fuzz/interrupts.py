"""Sends signals at random moments of compile, save and train, and looks at what is left.

    PYTHONPATH=tests python -m fuzz.interrupts [MOMENTS] [SEED]

After SIGINT, SIGTERM and SIGHUP: the exit code of the signal, no child process, no temporary file,
no half-written file, a training run that resumes to the same weights as if never interrupted. After
SIGKILL: the same, but for the exit code and temporary files. Prints one line per moment.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

from mmfree_compiler import interrupts
from mmfree_compiler.artifact import read_artifact
from mmfree_compiler.building import cache
from mmfree_compiler.errors import MmfreeError
from mmfree_compiler.models import ModelConfig, load_checkpoint, random_checkpoint
from mmfree_compiler.models.corpus import Corpus
from mmfree_compiler.models.tokenizer import VOCAB_SIZE, save_byte_tokenizer
from mmfree_compiler.models.train_config import TrainConfig
from mmfree_compiler.models.training import train

SIGNALS = (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL)
MARK = "MMFREE_TEST_MARK"  # in the environment of a command and of all that it starts
CLI = (sys.executable, "-m", "mmfree_compiler")
CONFIG = TrainConfig(hidden_size=32, layers=1, steps=200, batch=2, length=16)
TRAIN = ("--hidden-size", "32", "--layers", "1", "--steps", "200", "--batch", "2", "--length", "16")
SAVE = """
import sys
from mmfree_compiler import interrupts
interrupts.raise_interrupted()
try:
    from mmfree_compiler.artifact import read_artifact
    artifact = read_artifact(sys.argv[1])
    for _ in range(300):
        artifact.save(sys.argv[2])
except KeyboardInterrupt as interrupt:
    sys.exit(interrupts.exit_code(interrupt))
finally:
    interrupts.end_at_once()
"""
GRACE = 20.0  # seconds for a killed process's children to end


class EndedError(Exception):
    """A command ended before its signal, after `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


@dataclass
class Place:
    """Folders of all commands: what they read, and what they may write to."""

    root: Path
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        for name in ("cache", "temporary", "out"):
            (self.root / name).mkdir()
        self.environment = os.environ | {
            "TMPDIR": str(self.root / "temporary"),
            "XDG_CACHE_HOME": str(self.root / "cache"),
            MARK: str(self.root),
        }
        stubs = cache.folder("zig")  # made once: they take the linker seconds
        shutil.copytree(stubs, self.root / "cache" / "mmfree-compiler" / stubs.name)
        checkpoint = self.root / "checkpoint"
        random_checkpoint(checkpoint, ModelConfig.of(64, 2, VOCAB_SIZE))
        save_byte_tokenizer(checkpoint / "tokenizer.json")
        (self.root / "text").write_bytes(b"spam, eggs and some more of both. " * 200)

    def start(self, command: tuple[str, ...]) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=self.environment, stdout=pipe, stderr=pipe)

    def run(self, command: tuple[str, ...]) -> float:
        """The seconds that `command` takes, undisturbed."""
        started = time.perf_counter()
        with self.start(command) as process:
            _, stderr = process.communicate()
        assert process.returncode == 0, stderr.decode()
        return time.perf_counter() - started

    def renew(self) -> None:
        """Forget what earlier commands made, compiled kernels included."""
        for name in ("temporary", "out", "cache/mmfree-compiler/objects"):
            shutil.rmtree(self.root / name, ignore_errors=True)
        for name in ("temporary", "out"):
            (self.root / name).mkdir()

    def leftovers(self) -> list[Path]:
        """Temporary files, but for the caches of Zig and torch."""
        folders = (self.root / "out", self.root / "cache" / "mmfree-compiler" / "objects")
        hidden = [path for folder in folders for path in folder.glob(".mmfree-*")]
        made = (self.root / "temporary").iterdir()
        return [*(path for path in made if not path.name.startswith("torchinductor")), *hidden]

    def children(self) -> list[int]:
        """Processes that a command has started and left."""
        mark, found = f"{MARK}={self.root}".encode(), []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
        return found


def _check_artifact(place: Place) -> None:
    path = place.root / "out" / "model.mmfree"
    if path.exists():
        read_artifact(path, verify=True)


def _check_run(place: Place) -> None:
    output = place.root / "out" / "run"
    if output.exists():
        load_checkpoint(output)
    # As `mmfree train --resume` does, but without importing torch once more.
    train(CONFIG, Corpus.read([place.root / "text"]), output)
    expected, found = (folder / "model.safetensors" for folder in (place.root / "whole", output))
    assert found.read_bytes() == expected.read_bytes(), "resumed to other weights"


def _compile(place: Place) -> tuple[str, ...]:
    target = ("--target", "cpu:portable,x86-64-v3", "--check", "none")  # a child compiles one
    output = str(place.root / "out" / "model.mmfree")
    return (*CLI, "compile", str(place.root / "checkpoint"), "-o", output, *target)


def _train(place: Place) -> tuple[str, ...]:
    output = str(place.root / "out" / "run")
    return (*CLI, "train", str(place.root / "text"), "-o", output, *TRAIN, "--threads", "1")


def _save(place: Place) -> tuple[str, ...]:
    artifacts = place.root / "compiled.mmfree", place.root / "out" / "model.mmfree"
    return (sys.executable, "-c", SAVE, *map(str, artifacts))


KINDS: dict[str, tuple[Callable[[Place], tuple[str, ...]], Callable[[Place], None]]] = {
    "compile": (_compile, _check_artifact),
    "train": (_train, _check_run),
    "save": (_save, _check_artifact),
}


def _whole(place: Place, kinds: Iterable[str]) -> dict[str, float]:
    """The seconds of each kind's command, undisturbed; keeps what the checks compare with."""
    seconds = {}
    for kind in kinds:
        place.renew()
        seconds[kind] = place.run(KINDS[kind][0](place))
        for made, kept in (("model.mmfree", "compiled.mmfree"), ("run", "whole")):
            if (place.root / "out" / made).exists() and not (place.root / kept).exists():
                (place.root / "out" / made).rename(place.root / kept)
    return seconds


def _moment(place: Place, kind: str, number: int, delay: float) -> str:
    """Send the signal after `delay` seconds, and check what is left; how the process ended.

    Raises EndedError with the seconds that it took if it ended before.
    """
    command, check = KINDS[kind]
    place.renew()
    started = time.perf_counter()
    with place.start(command(place)) as process:
        with suppress(subprocess.TimeoutExpired):
            process.wait(delay)
            raise EndedError(time.perf_counter() - started)
        process.send_signal(number)
        try:
            _, stderr = process.communicate(timeout=120)
        finally:
            process.kill()
    killed = number == signal.SIGKILL
    until = time.perf_counter() + (GRACE if killed else 0)
    while place.children() and time.perf_counter() < until:
        time.sleep(0.1)
    assert place.children() == [], "left a child"
    # Before the command line has installed its handlers, and after its end, a signal just kills.
    assert process.returncode in (0, 128 + number, -number), f"{process.returncode}: {stderr!r}"
    assert b"Traceback" not in stderr, stderr.decode()
    assert killed or not place.leftovers(), f"left {place.leftovers()}"
    check(place)
    return f"exit {process.returncode}, {stderr.decode().strip()!r}"


@contextmanager
def _place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory() as folder:
        yield Place(Path(folder))


def _try(place: Place, kind: str, chance: random.Random, seconds: dict[str, float]) -> bool:
    """Whether nothing was left at a moment of `kind`, which takes `seconds`."""
    number, delay = chance.choice(SIGNALS), chance.uniform(0, seconds[kind])
    says = f"{kind}, {signal.Signals(number).name} after {delay:.2f} s"
    try:
        print(f"{says}: {_moment(place, kind, number, delay)}", flush=True)
    except EndedError as late:  # the machine is less busy than it was
        seconds[kind] = late.seconds
        return _try(place, kind, chance, seconds)
    except (AssertionError, MmfreeError) as error:
        print(f"{says}: FAILED: {error}", flush=True)
        return False
    return True


def main(moments: int, seed: int) -> int:
    """The number of moments that left anything behind; prints what."""
    torch.set_num_threads(1)  # as the trainings that it resumes
    for number in interrupts.ENDING:
        if signal.getsignal(number) is signal.SIG_IGN:  # by nohup; commands would inherit it
            signal.signal(number, signal.SIG_DFL)
    chance, failures = random.Random(seed), 0
    with _place() as place:
        seconds = _whole(place, [*KINDS][:moments])
        print(f"undisturbed: {seconds}", flush=True)
        for index in range(moments):
            kind = list(KINDS)[index % len(KINDS)]
            failures += not _try(place, kind, chance, seconds)
    print(f"{moments} moments, {failures} failures")
    return failures


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    sys.exit(main(*(given + [50, 0][len(given) :])) > 0)
