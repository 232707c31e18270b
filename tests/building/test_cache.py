"""The cache gives back what was kept or nothing, whatever happens to its folder."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmfree_compiler.building import cache
from mmfree_compiler.errors import ToolchainError

# Two of these processes write and read one entry; each leaves when it saw anything but a whole one.
WRITER = """
import sys
from pathlib import Path
from mmfree_compiler.building import cache
cache.folder = lambda name: Path(sys.argv[1])
data = bytes([int(sys.argv[2])]) * 100_000
for _ in range(200):
    cache.store("entry", data)
    found = cache.load("entry")
    assert found is not None and len(found) == len(data) and len(set(found)) == 1
"""


@given(st.binary(), st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_keeps_bytes_and_notices_damage(cold: Path, data: bytes, draw: st.DataObject) -> None:
    cache.store("entry", data)
    assert cache.load("entry") == data
    whole = (cold / "entry").read_bytes()
    place = draw.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[place] ^= draw.draw(st.integers(1, 255))
    for bad in (bytes(damaged), whole[:place], whole + b"\0"):
        (cold / "entry").write_bytes(bad)
        assert cache.load("entry") is None


def test_an_entry_that_is_no_file_is_none(cold: Path) -> None:
    """Reading a pipe would wait forever."""
    os.mkfifo(cold / "pipe")
    (cold / "folder").mkdir()
    assert cache.load("pipe") is None
    assert cache.load("folder") is None


def test_makes_once(cold: Path) -> None:
    made = iter([b"first", b"second"])
    assert [cache.get("entry", lambda: next(made)) for _ in range(2)] == [b"first"] * 2
    (cold / "entry").write_bytes(b"damaged")
    assert cache.get("entry", lambda: next(made)) == b"second"


def test_keys_tell_facts_apart() -> None:
    facts: list[tuple[object, ...]] = [(), ("",), ("", ""), ("ab", "c"), ("a", "bc"), ("a", ("b",))]
    assert len({cache.key(*fact) for fact in facts}) == len(facts)
    assert cache.key("a", 1) == cache.key("a", 1)


def test_those_used_longest_ago_make_room(cold: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "LIMIT", 3 * (100 + cache.DIGEST))
    for age, name in enumerate(("newest", "middle", "oldest")):
        cache.store(name, bytes(100))
        os.utime(cold / name, (1000 - age, 1000 - age))
    cache.load("oldest")
    cache.store("another", bytes(100))
    assert {path.name for path in cold.iterdir()} == {"newest", "oldest", "another"}


def test_a_folder_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> Path:
        raise ToolchainError(name, "cannot be written to")

    for folder in (refuse, lambda _: tmp_path / "absent"):
        monkeypatch.setattr(cache, "folder", folder)
        cache.store("entry", b"data")
        assert cache.load("entry") is None


def test_falls_back_to_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert cache.folder("part").parent.parent == tmp_path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder, and a temporary folder beside it."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "mmfree-compiler"


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o077, 0o022], ids=oct)
def test_new_folders_are_of_this_user_alone(home: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        assert cache.folder("part") == home / "part"
    finally:
        os.umask(before)
    assert (mode(home), mode(home / "part")) == (0o700, 0o700)


def test_folders_that_others_may_read_are_shut(home: Path) -> None:
    (home / "part").mkdir(parents=True)
    home.chmod(0o755)
    (home / "part").chmod(0o755)
    assert cache.folder("part") == home / "part"
    assert (mode(home), mode(home / "part")) == (0o700, 0o700)


@pytest.mark.parametrize("loose", [0o777, 0o1777, 0o770, 0o702], ids=oct)
def test_folders_that_others_may_write_are_not_used(home: Path, loose: int) -> None:
    (home / "part").mkdir(parents=True)
    for path in (home, home / "part"):
        home.chmod(0o755)
        path.chmod(loose)
        found = cache.folder("part")
        assert found.parent.parent == home.parents[1] / "temporary"
        assert (mode(path), mode(found), mode(found.parent)) == (loose, 0o700, 0o700)


def test_a_folder_in_one_that_was_shut_is_shut_too(home: Path) -> None:
    """Nobody could reach it, whatever its own mode. Earlier versions made it by the umask."""
    (home / "part").mkdir(parents=True)
    home.chmod(0o700)
    (home / "part").chmod(0o775)
    assert cache.folder("part") == home / "part"
    assert mode(home / "part") == 0o700


def test_folders_of_others_are_not_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.mkdir(parents=True)
    monkeypatch.setattr(os, "getuid", lambda: 4321)
    with pytest.raises(ToolchainError, match=r"another user.*another user.*XDG_CACHE_HOME"):
        cache.folder("part")


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a link away")
def test_a_link_of_another_user_is_not_followed(home: Path, tmp_path: Path) -> None:
    """Though it leads to a folder of this one."""
    (tmp_path / "mine").mkdir(mode=0o700)
    home.parent.mkdir()
    home.symlink_to(tmp_path / "mine")
    assert cache.folder("part") == home / "part"
    os.lchown(home, 4321, 4321)
    assert cache.folder("part").parent.parent == tmp_path / "temporary"


def test_an_entry_is_the_one_that_was_asked_for(cold: Path) -> None:
    """Not one of the same folder under another name."""
    cache.store("entry", b"code")
    (cold / "entry").rename(cold / "other")
    assert cache.load("other") is None
    os.link(cold / "other", cold / "entry")
    assert cache.load("entry") == b"code"


def test_processes_share_it(cold: Path) -> None:
    commands = [[sys.executable, "-c", WRITER, str(cold), str(number)] for number in range(2)]
    processes = [subprocess.Popen(command) for command in commands]
    assert [process.wait() for process in processes] == [0, 0]
    assert [path.name for path in cold.iterdir()] == ["entry"]
