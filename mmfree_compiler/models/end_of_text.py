"""Which tokens end a text, as the files of a checkpoint folder say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mmfree_compiler.errors import CheckpointError
from mmfree_compiler.models.config import EndOfText, ModelConfig
from mmfree_compiler.models.json_file import read_json

GENERATION = "generation_config.json"
# Files that name the token by its text; tokenizer.json has its id.
NAMING = ("tokenizer_config.json", "special_tokens_map.json")
_EOS = TypeAdapter(EndOfText)


def end_of_text(folder: Path, config: ModelConfig) -> tuple[str, EndOfText]:
    """The file that says it, and the ids. Raises CheckpointError on ids beyond the vocabulary.

    generation_config.json counts before config.json, as in transformers, then the tokenizer's own
    files. `config` is what config.json says.
    """
    said = ((name, ids) for name, ids in _sources(folder, config) if ids not in (None, []))
    name, ids = next(said, ("", None))
    wrong = [token for token in _listed(ids) if token >= config.vocab_size]
    if wrong:
        cause = f"eos_token_id {wrong[0]} is outside the vocabulary of {config.vocab_size:,}"
        raise CheckpointError(str(folder / name), cause, "Name the token that ends a text")
    return name, ids


def _sources(folder: Path, config: ModelConfig) -> Iterator[tuple[str, EndOfText]]:
    if (folder / GENERATION).exists():
        found = read_json(folder / GENERATION).get("eos_token_id")
        try:
            yield GENERATION, _EOS.validate_python(found, strict=True)
        except ValidationError:
            cause = f"eos_token_id is {ascii(found)[:100]}"
            raise CheckpointError(
                str(folder / GENERATION), cause, "Write an id or a list of ids"
            ) from None
    yield "config.json", config.eos_token_id
    for name in NAMING:
        if (folder / name).exists():
            yield name, _id(folder / "tokenizer.json", read_json(folder / name).get("eos_token"))


def _id(tokenizer: Path, token: Any) -> int | None:
    """The id of a token that is written as `token`, or as its "content"."""
    text = token.get("content") if isinstance(token, dict) else token
    if not isinstance(text, str) or not tokenizer.exists():
        return None
    fields = read_json(tokenizer)
    added = fields.get("added_tokens")
    entries = [x for x in added if isinstance(x, dict)] if isinstance(added, list) else []
    found = next((x.get("id") for x in entries if x.get("content") == text), None)
    return found if type(found) is int and found >= 0 else None


def _listed(ids: EndOfText) -> list[int]:
    return ids if isinstance(ids, list) else [] if ids is None else [ids]
