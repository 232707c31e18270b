"""Text to ids and back: the tokenizer in an artifact."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.errors import ArtifactError, InputError, MmfreeError, ToolchainError
from mmfree_compiler.runtime.byte_tokens import SPLITS, Characters, Group, Unit
from mmfree_compiler.runtime.prompts import PLAIN, Reading

_LARGEST_ID = (1 << 32) - 1  # that the package can represent


class Tokenizer:
    """A tokenizer of the `tokenizers` package, made from the bytes of a tokenizer.json.

    What training and batching switch on there is switched off, since it would change a prompt:
    truncation, padding, and the dropout of merges. `switched_off` names what was on.

    Raises ToolchainError when the package is not installed, ArtifactError when the bytes are not a
    tokenizer.
    """

    def __init__(self, text: bytes) -> None:
        if not self.available():
            hint = "pip install mmfree-compiler[text], or pass token ids"
            raise ToolchainError("tokenizers", "the package is not installed", hint)
        self._source = text
        with _refused("is not a tokenizer"):
            fields = json.loads(text)
            self._tokenizer, self.switched_off = self._open()
            self._tokenizer.encode_special_tokens = True  # as plain text
            added = self._tokenizer.get_added_tokens_decoder().items()
            self._special = {number: token.content for number, token in added if token.special}
            self._unknown = _unknown(self._tokenizer, fields["model"])
            self._decoder = self._tokenizer.decoder
            kinds = _types(fields.get("decoder"))
            self._split = next(split for kind, split in SPLITS.items() if kind in kinds)

    @staticmethod
    def available() -> bool:
        """Whether the tokenizers package is installed."""
        return find_spec("tokenizers") is not None

    def _open(self) -> tuple[Any, tuple[str, ...]]:
        """A new tokenizer of the package, and what was switched off in it."""
        import tokenizers

        made = tokenizers.Tokenizer.from_str(self._source.decode())
        on = {
            "truncation": made.truncation,
            "padding": made.padding,
            "dropout": getattr(made.model, "dropout", None),
        }
        made.no_truncation()
        made.no_padding()
        if on["dropout"] is not None:
            made.model.dropout = None
        return made, tuple(name for name, setting in on.items() if setting is not None)

    @cached_property
    def _allowing(self) -> Any:
        """The same tokenizer, which reads special tokens in a text."""
        return self._open()[0]

    @cached_property
    def ids(self) -> dict[str, int]:
        """Token -> id of the whole vocabulary, with the tokens that were added to it."""
        return dict(self._tokenizer.get_vocab(with_added_tokens=True))

    @property
    def special(self) -> dict[str, int]:
        """How each special token is written -> its id. Decoding leaves these tokens out."""
        return {content: number for number, content in self._special.items()}

    def encode(
        self, text: str, special: bool = True, reading: Reading = PLAIN
    ) -> NDArray[np.int64]:
        """Ids (T,) int64; `special` adds the tokenizer's special tokens, such as a BOS.

        Raises InputError as `reading.check` does, on text that the tokenizer has no tokens for, and
        on plain text that the tokenizer reads as a special token all the same.
        """
        reading.check(text)
        encoder = self._allowing if reading.allow_special_tokens else self._tokenizer
        with _refused("cannot be encoded", "prompt"):
            found = encoder.encode(text, add_special_tokens=special)
        ids = np.array(found.ids, np.int64)
        if not reading.allow_special_tokens:
            self._check_plain(ids[np.array(found.special_tokens_mask, np.int64) == 0])
        return ids

    def _check_plain(self, ids: NDArray[np.int64]) -> None:
        """Raise InputError if `ids` (T,) of a plain text has special tokens.

        A vocabulary may list them among its words. The unknown token is one of them in any text.
        """
        special = [number for number in self._special if number != self._unknown]
        read = ids[np.isin(ids, special)]
        if read.size:
            cause = f"the tokenizer reads {self._special[int(read[0])]!r} as a special token"
            raise InputError("prompt", cause, "Remove it, or pass `allow_special_tokens=True`")

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, without special tokens, and with incomplete UTF-8 as U+FFFD.

        Ids that the tokenizer does not know have no text. Raises ArtifactError as `join` does.
        """
        characters = Characters()
        units = (unit for token in ids for unit in self.units(token))
        groups = [group for unit in units for group in characters.push(unit)]
        return self.join([*groups, *characters.flush()])

    def units(self, token: int) -> list[Unit]:
        """What the decoder reads of a token: nothing of a special or unknown one."""
        if token in self._special or not 0 <= token <= _LARGEST_ID:
            return []
        string = self._tokenizer.id_to_token(token)
        return [] if string is None else self._split(string)

    def join(self, groups: Iterable[Group]) -> str:
        """The text of groups of units. Raises ArtifactError when the decoder fails."""
        strings = [string for group in groups for string in group]
        if self._decoder is None or not strings:  # some decoders panic at none
            return " ".join(strings)
        with _refused("cannot decode"):
            return str(self._decoder.decode(strings))


@contextmanager
def _refused(cause: str, thing: str = "tokenizer.json") -> Iterator[None]:
    """Turn what the package raises into an error about the prompt or the tokenizer.

    It raises plain Exceptions, and for a panic of its Rust code a BaseException.
    """
    try:
        yield
    except (MmfreeError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        text = f"{cause}: {error}"
        if thing == "prompt":
            raise InputError(thing, text, "The tokenizer has no tokens for it") from error
        raise ArtifactError(thing, text, "Compile the model again") from error


def _types(decoder: Any) -> set[str]:
    """The types of a decoder in tokenizer.json and of its parts, and "", which any decoder has."""
    if not decoder:
        return {""}
    return {"", decoder["type"]}.union(*map(_types, decoder.get("decoders", ())))


def _unknown(tokenizer: Any, model: dict[str, Any]) -> int | None:
    """The id for what the vocabulary does not have: by name, or of Unigram by number."""
    name = model.get("unk_token")
    return model.get("unk_id") if name is None else tokenizer.token_to_id(name)
