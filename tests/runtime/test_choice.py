"""Which target of an artifact a session runs."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_launcher import FakeLauncher, lm_artifact

from mmfree_compiler import backends
from mmfree_compiler.artifact import Artifact
from mmfree_compiler.errors import (
    ArtifactError,
    DeviceError,
    InputError,
    MmfreeError,
    TargetError,
    ToolchainError,
)
from mmfree_compiler.runtime import Session, State, load

NO_DEVICE = TargetError("this machine", "has no such device", "Buy one")
IDS = np.array([[1, 2, 3]])


class DeviceLauncher(FakeLauncher):
    """Of the target "board", which takes a `device`."""

    build = "board-2"

    def __init__(self, artifact: Artifact, device: int | None = None) -> None:
        super().__init__(artifact)
        self.device = device

    @classmethod
    def open(cls, artifact: Artifact, device: int | None = None) -> DeviceLauncher:
        return cls(artifact, device)


@dataclass
class Board:
    """A backend whose launcher opens, or fails with `error`."""

    error: MmfreeError | None = None
    kind: str = "board"
    extra: str = "board-backend[compile]"
    options: tuple[str, ...] = ("device",)

    def launcher(self) -> Any:
        def fail(*_: object, **__: object) -> None:
            raise self.error  # type: ignore[misc]

        return SimpleNamespace(open=fail) if self.error else DeviceLauncher


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Board:
    """The backend of the target "board"; that of "cpu" runs a FakeLauncher."""
    made = Board()
    monkeypatch.setattr(
        backends, "_installed", lambda: {"board": SimpleNamespace(load=lambda: made)}
    )
    monkeypatch.setattr(backends.get("cpu"), "launcher", lambda: FakeLauncher)
    return made


BOTH = lm_artifact(targets=("board:fast", "cpu"))


def launcher_of(session: Session) -> Any:
    return session.launcher


@pytest.mark.usefixtures("board")
def test_the_first_target_that_runs_here() -> None:
    assert isinstance(Session(BOTH).launcher, DeviceLauncher)
    turned = Session(lm_artifact(targets=("cpu", "board:fast")))
    assert type(turned.launcher) is FakeLauncher
    assert (turned.refused, turned.artifact.entry.target) == ({}, "cpu")


@pytest.mark.parametrize("error", [NO_DEVICE, ToolchainError("board", "needs a driver")])
def test_targets_that_do_not_run_here_are_passed_over(board: Board, error: MmfreeError) -> None:
    board.error = error
    session = Session(BOTH)
    assert type(session.launcher) is FakeLauncher
    assert (session.refused, session.artifact.entry.target) == ({"board:fast": error}, "cpu")
    assert repr(session) == "Session(language model, targets board:fast, cpu, runs fake on cpu)"


@pytest.mark.parametrize(
    "error",
    [
        DeviceError("the board", "has too little memory"),
        ArtifactError("the file", "is damaged"),
        InputError("option 'device'", "is wrong"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_other_faults_do_not_move_the_work_to_another_target(
    board: Board, error: MmfreeError
) -> None:
    board.error = error
    with pytest.raises(type(error), match=error.cause):
        Session(BOTH)


def test_no_target_runs_here(board: Board) -> None:
    board.error = NO_DEVICE
    with pytest.raises(TargetError) as caught:
        Session(lm_artifact(targets=("board:fast", "abacus", "reference")))
    assert caught.value.cause == (
        "no target of it runs here: board:fast: this machine: has no such device; "
        "abacus: target 'abacus': is unknown; "
        "reference: target reference: runs only in the process that compiled it"
    )
    with pytest.raises(TargetError, match=r"this machine: has no such device\. Buy one"):
        Session(lm_artifact(targets=("board:fast",)))


@pytest.mark.usefixtures("board")
def test_a_target_chosen_by_hand(tmp_path: Path) -> None:
    BOTH.save(tmp_path / "model.mmfree")
    for target in ("cpu", "board", "board:fast"):
        session = load(tmp_path / "model.mmfree", target=target)
        assert session.artifact.entry.target.startswith(target)
        assert isinstance(session.launcher, DeviceLauncher) == (target != "cpu")
        assert session.refused == {}
    for other in ("reference", "board:slow", "cpu:", "", 3):
        with pytest.raises(TargetError, match=r"is not in the model\. It has: board:fast, cpu"):
            load(tmp_path / "model.mmfree", target=other)  # type: ignore[arg-type]


def test_a_target_chosen_by_hand_has_no_substitute(board: Board) -> None:
    board.error = NO_DEVICE
    with pytest.raises(TargetError, match="this machine: has no such device"):
        Session(BOTH, target="board")


def test_options_are_for_the_target_that_runs(board: Board) -> None:
    """One line of code serves both."""
    assert launcher_of(Session(BOTH, 3, device=1)).device == 1
    assert launcher_of(Session(BOTH, 3, target="cpu", device=1)).threads == 3
    board.error = NO_DEVICE
    assert launcher_of(Session(BOTH, 3, device=1)).threads == 3


@pytest.mark.usefixtures("board")
def test_options_that_no_target_takes() -> None:
    known = r"'speed': is not an option of target board or cpu\. Known: device, threads"
    with pytest.raises(InputError, match=known):
        Session(BOTH, speed=1)
    with pytest.raises(InputError, match=known):
        Session(BOTH, target="cpu", speed=1)
    with pytest.raises(InputError, match="'device': is not an option of target cpu"):
        Session(lm_artifact(), device=1)


def test_an_unknown_target_hides_no_other(board: Board) -> None:
    """Nobody knows which options it takes."""
    artifact = lm_artifact(targets=("abacus", "board:fast"))
    session = Session(artifact, beads=10, device=2)
    assert launcher_of(session).device == 2
    assert list(session.refused) == ["abacus"]
    board.error = NO_DEVICE
    with pytest.raises(TargetError, match="abacus: target 'abacus': is unknown; board:fast: "):
        Session(artifact)


def test_a_pickled_session_chooses_again(board: Board) -> None:
    """Where it is read, another target may run; one that was chosen by hand stays."""
    first, by_hand = pickle.dumps(Session(BOTH)), pickle.dumps(Session(BOTH, target="cpu"))
    assert isinstance(pickle.loads(first).launcher, DeviceLauncher)
    assert type(pickle.loads(by_hand).launcher) is FakeLauncher
    board.error = NO_DEVICE
    assert type(pickle.loads(first).launcher) is FakeLauncher


@pytest.mark.usefixtures("board")
def test_a_state_goes_from_one_target_to_the_other(tmp_path: Path) -> None:
    ours, theirs = Session(BOTH), Session(BOTH, target="cpu")
    expected, _ = ours(IDS)
    _, state = ours(IDS[:, :2])
    state.save(tmp_path / "state")
    found, _ = theirs(IDS[:, 2:], State.load(tmp_path / "state"))
    assert np.array_equal(found, expected[:, 2:])


def test_each_target_sees_its_own_part() -> None:
    first, second = BOTH.targets
    assert [view.entry.target for view in (BOTH, first, second)] == [
        "board:fast",
        "board:fast",
        "cpu",
    ]
    for again in (pickle.loads(pickle.dumps(second)), copy.copy(second)):
        assert again.entry.target == "cpu"
        assert np.array_equal(again.tensor("head"), second.tensor("head"))
