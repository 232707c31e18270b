"""Training text: documents, their deterministic split, and the text that comes with Python."""

from __future__ import annotations

import ast
import hashlib
import os
import stat
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmfree_compiler.errors import CorpusError
from mmfree_compiler.models.tokenizer import END_OF_TEXT_ID
from mmfree_compiler.wording import counted, few

HELD_OUT_EVERY = 20  # one piece in twenty is held out
_HINT = "Name files or folders of text that you may read"
LONGEST_PIECE = 32768  # bytes; longer documents are cut, so that a part of each may be held out


@dataclass(frozen=True)
class Corpus:
    """Byte tokens of both sides of the split, each piece followed by the end-of-text token.

    `train` and `held_out` are (N,) int16; `digest` is the SHA-256 of both, in hexadecimal. `name`
    is what errors call it: the paths that it was read from.
    """

    train: Tensor
    held_out: Tensor
    digest: str
    name: str = "corpus"

    @classmethod
    def read(cls, paths: Sequence[Path]) -> Corpus:
        """The corpus of the files at `paths`, one document per file; folders in sorted order.

        Raises CorpusError on a path that cannot be read, and as `of` does.
        """
        documents = (_read(file) for path in paths for file in _files(path))
        return cls.of(documents, few([str(path) for path in paths]))

    @classmethod
    def of(cls, documents: Iterable[bytes], name: str = "corpus") -> Corpus:
        """Split documents: every 20th piece is held out, the first included.

        Raises CorpusError when either side would be empty.
        """
        pieces = _pieces([document for document in documents if document])
        if len(pieces) < 2:
            cause = f"has {counted(sum(map(len, pieces)), 'byte')} of text, too short to train on"
            raise CorpusError(name, cause, "Give at least a few kilobytes of text")
        # In the order of their hashes, a prefix of the held-out text is a sample of all of it.
        held_out = sorted(pieces[::HELD_OUT_EVERY], key=_digest)
        train = [piece for n, piece in enumerate(pieces) if n % HELD_OUT_EVERY]
        tokens = _tokens(train), _tokens(held_out)
        digest = hashlib.sha256(b"".join(side.numpy().tobytes() for side in tokens)).hexdigest()
        return cls(*tokens, digest, name)


def _pieces(documents: list[bytes]) -> list[bytes]:
    """Documents cut to LONGEST_PIECE, or shorter when that would leave fewer than twenty pieces."""
    total = sum(map(len, documents))
    size = max(1, min(LONGEST_PIECE, total // HELD_OUT_EVERY))
    return [text[n : n + size] for text in documents for n in range(0, len(text), size)]


def _digest(piece: bytes) -> bytes:
    return hashlib.sha256(piece).digest()


def _tokens(pieces: Sequence[bytes]) -> Tensor:
    end = np.array([END_OF_TEXT_ID], dtype=np.int16)
    arrays: list[NDArray[np.int16]] = []
    for piece in pieces:
        arrays += [np.frombuffer(piece, np.uint8).astype(np.int16), end]
    return torch.from_numpy(np.concatenate(arrays))


def _files(path: Path) -> list[Path]:
    """The files to read at `path`: itself, or all in that folder, without pipes and devices."""
    if not os.path.isdir(path):  # raises nothing, unlike Path.is_dir
        return [path]
    walked = os.walk(path, onerror=_refuse)
    files = (Path(folder, name) for folder, _, names in walked for name in names)
    return sorted(file for file in files if os.path.isfile(file))


def _refuse(error: OSError) -> NoReturn:
    """Raise CorpusError: text that is left out silently would be missed much later."""
    cause = f"cannot be read: {error.strerror or error}"
    raise CorpusError(str(error.filename), cause, _HINT) from None


def _read(file: Path) -> bytes:
    try:
        if stat.S_ISREG(file.stat().st_mode):  # a device or a pipe might never end
            return file.read_bytes()
    except OSError as error:
        _refuse(error)
    raise CorpusError(str(file), "is not a regular file", _HINT)


def python_corpus() -> list[bytes]:
    """The text that comes with Python (PSF licence), sorted, without duplicates.

    First the topics of the language reference, then the docstrings of each standard module as one
    document per module.
    """
    from pydoc_data.topics import topics

    seen: set[str] = set()
    documents = [text.strip() for _, text in sorted(topics.items())]
    for path in _standard_modules():
        fresh = [text for text in dict.fromkeys(_docstrings(path)) if text not in seen]
        seen.update(fresh)
        documents.append("\n\n".join(fresh))
    return [text.encode() for text in documents if text]


def _standard_modules() -> list[Path]:
    """Sources of the standard library, without installed packages and test suites."""
    root = Path(sysconfig.get_paths()["stdlib"])
    skipped = {"site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3"}
    return sorted(p for p in root.rglob("*.py") if not skipped & set(p.relative_to(root).parts))


def _docstrings(path: Path) -> Iterator[str]:
    """Docstrings of a module in source order, functions and classes headed by their signature."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return  # the library has a few templates and deliberately broken files
    for node in sorted(ast.walk(tree), key=lambda node: getattr(node, "lineno", 0)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        text = ast.get_docstring(node)
        if text and len(text) > 20:
            yield _headline(node) + text


def _headline(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    if isinstance(node, ast.Module):
        return ""
    if isinstance(node, ast.ClassDef):
        return f"class {node.name}\n\n"
    return f"{node.name}({ast.unparse(node.args)})\n\n"
