"""Corpora: the split, unreadable files, the standard library's text, and the byte tokenizer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from mmfree_compiler.errors import CorpusError
from mmfree_compiler.models import corpus as corpora
from mmfree_compiler.models.corpus import Corpus, python_corpus
from mmfree_compiler.models.tokenizer import (
    END_OF_TEXT,
    END_OF_TEXT_ID,
    VOCAB_SIZE,
    save_byte_tokenizer,
)


@given(st.lists(st.binary(min_size=1, max_size=300), min_size=2, max_size=50))
def test_every_byte_is_on_one_side_of_the_split(documents: list[bytes]) -> None:
    corpus = Corpus.of(documents)
    both = corpus.train.tolist() + corpus.held_out.tolist()
    assert sorted(t for t in both if t != END_OF_TEXT_ID) == sorted(b"".join(documents))
    assert corpus.train.tolist()[-1] == corpus.held_out.tolist()[-1] == END_OF_TEXT_ID
    assert Corpus.of(documents).digest == corpus.digest


@given(st.integers(20, 5000))
def test_a_twentieth_of_one_document_is_held_out(size: int) -> None:
    corpus = Corpus.of([bytes(size)])
    assert 0 < len(corpus.held_out) <= size // 10 + 4


@pytest.mark.parametrize("documents", [[], [b""], [b"x"]])
def test_too_short(documents: list[bytes]) -> None:
    with pytest.raises(CorpusError, match="too short"):
        Corpus.of(documents)


def test_folders_are_read_in_order(tmp_path: Path) -> None:
    for name in ("b", "a", "c/d"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name * 50)
    texts = [(tmp_path / name).read_bytes() for name in ("a", "b", "c/d")]
    assert Corpus.read([tmp_path]).digest == Corpus.of(texts).digest


def test_what_is_too_short_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_bytes(b"x")
    with pytest.raises(CorpusError, match=r"/folder, \S*/text: has 1 byte of text, too short"):
        Corpus.read([tmp_path / "folder", tmp_path / "text"])


def test_a_folder_that_cannot_be_read_is_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "text").write_bytes(b"text " * 99)
    listed = os.scandir

    def scandir(path: str) -> object:
        if Path(path).name == "private":
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(CorpusError, match="private: cannot be read: Permission denied"):
        Corpus.read([tmp_path])


def test_unreadable_paths(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, cause in (("nowhere", "No such file"), ("pipe", "not a regular file")):
        with pytest.raises(CorpusError, match=rf"{name}.*{cause}"):
            Corpus.read([tmp_path / name])


def test_python_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.py").write_text("def (")
    (tmp_path / "module.py").write_text(
        '"""The docstring of this module."""\n'
        "class Thing:\n    '''The docstring of a class.'''\n"
        "    def act(self, n=1):\n        '''The docstring of a method.'''\n"
        "def act(self, n=1):\n    '''The docstring of a method.'''\n"
        "def brief():\n    '''Too short.'''\n"
    )
    sources = sorted(tmp_path.iterdir())
    monkeypatch.setattr(corpora, "_standard_modules", lambda: sources)
    *topics, module = python_corpus()
    assert any(b'The "assert" statement' in text for text in topics)
    assert module.decode() == (
        "The docstring of this module.\n\nclass Thing\n\nThe docstring of a class.\n\n"
        "act(self, n=1)\n\nThe docstring of a method."
    )


def test_standard_modules_are_the_library_itself() -> None:
    names = [path.name for path in corpora._standard_modules()]
    assert {"ast.py", "pathlib.py", "base_events.py"} <= set(names)
    assert not any(name.startswith("test_") for name in names)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    save_byte_tokenizer(path)
    return Tokenizer.from_file(str(path))


@given(text=st.text())
def test_ids_are_bytes(tokenizer: Tokenizer, text: str) -> None:
    text = text.replace(END_OF_TEXT, "")
    assert tokenizer.encode(text).ids == list(text.encode())
    assert tokenizer.decode(list(text.encode())) == text


def test_end_of_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode(f"a{END_OF_TEXT}b").ids == [97, END_OF_TEXT_ID, 98]
    assert tokenizer.decode([97, END_OF_TEXT_ID, 98]) == "ab"
    assert tokenizer.get_vocab_size() == VOCAB_SIZE
