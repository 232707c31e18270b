"""Options and fixtures that the tests of several packages share."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite golden texts instead of comparing"
    )


DEMO = Path(__file__).resolve().parents[1] / "demo"

# Machines are shared: how long an example takes says nothing.
settings.register_profile("any_time", deadline=None)
settings.load_profile("any_time")


def pytest_configure(config: pytest.Config) -> None:
    # A user's cache for the tests alone. Kernels are kept for one run: each compiles what it tests,
    # once; C libraries' stubs for the linker and what pip fetches are kept for the next run too.
    assert config.cache is not None
    home = config.cache.mkdir("user")
    if not hasattr(config, "workerinput"):  # not in pytest-xdist's workers, which share it
        shutil.rmtree(home / "mmfree-compiler" / "objects", ignore_errors=True)
    os.environ["XDG_CACHE_HOME"] = str(home)
    # pytest-xdist's workers have all CPUs already. More threads of torch, which is imported later,
    # would mostly wait for each other, and that takes CPU time too.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # A shell starts background jobs with Ctrl-C ignored, nohup with SIGHUP, and children would
    # inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that at the end no worker has a long one alone."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def compiling_alone(request: pytest.FixtureRequest) -> Iterator[None]:
    """pytest-xdist's workers compile without child processes: the other workers have the other
    CPUs, and each child would import TVM once more.
    """
    with pytest.MonkeyPatch.context() as patch:
        if hasattr(request.config, "workerinput"):
            patch.setattr("mmfree_compiler.building.jobs.resolve_threads", lambda _: 1)
        yield


@pytest.fixture
def cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing was compiled before: the new folder that compiled kernels are kept in."""
    from mmfree_compiler.building import cache

    plain = cache.folder
    kept = tmp_path / "kept"
    kept.mkdir()
    monkeypatch.setattr(cache, "folder", lambda name: kept if name == "objects" else plain(name))
    return kept


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden(name, text)` compares with golden/<name>.txt beside the test, or renews it."""
    folder = Path(request.path).parent / "golden"
    update = request.config.getoption("--update-golden")

    def check(name: str, text: str) -> None:
        path = folder / f"{name}.txt"
        if update:
            folder.mkdir(exist_ok=True)
            path.write_text(text + "\n", encoding="utf-8")
        assert path.read_text(encoding="utf-8") == text + "\n"

    return check


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of random weights, two layers of width 64, with the byte-level tokenizer."""
    from mmfree_compiler.models import ModelConfig, random_checkpoint
    from mmfree_compiler.models.tokenizer import VOCAB_SIZE, save_byte_tokenizer

    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    random_checkpoint(folder, ModelConfig.of(64, 2, VOCAB_SIZE))
    save_byte_tokenizer(folder / "tokenizer.json")
    return folder


@pytest.fixture(scope="session")
def tiny_artifact(tiny_checkpoint: Path) -> Path:
    """`tiny_checkpoint` compiled for the variant that every machine runs."""
    from mmfree_compiler import compiler

    path = tiny_checkpoint.with_name("tiny.mmfree")
    compiler.compile(tiny_checkpoint, "cpu:portable", threads=1).save(path)
    return path


@pytest.fixture(scope="session")
def both_targets(tiny_checkpoint: Path) -> Path:
    """`tiny_checkpoint` compiled for a GPU, without code for it, and for the CPU."""
    from no_gpu import without_code

    from mmfree_compiler import compiler

    path = tiny_checkpoint.with_name("both.mmfree")
    with without_code():
        compiler.compile(tiny_checkpoint, ["cuda:sm_80", "cpu:portable"], threads=1).save(path)
    return path
