"""JSON objects in files that others wrote."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from mmfree_compiler.errors import CheckpointError


class JsonError(ValueError):
    """Text that does not hold one JSON object, or says something twice."""


def parse_json(text: bytes) -> dict[str, Any]:
    """The JSON object in `text`. Raises JsonError, also when a key stands twice in an object."""
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except JsonError:
        raise
    except (ValueError, RecursionError) as error:
        raise JsonError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise JsonError("not a JSON object")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Readers disagree about which of two equal keys counts."""
    value = dict(pairs)
    if len(value) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise JsonError(f"names {twice!r} twice")
    return value


def read_json(path: Path) -> dict[str, Any]:
    """Read the JSON object at `path`. Raises CheckpointError when the file does not hold one."""
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait forever
            raise CheckpointError(str(path), "is not a regular file", "Write the file again")
        return parse_json(path.read_bytes())
    except JsonError as error:
        raise CheckpointError(str(path), str(error), "Write the file again") from None
    except (OSError, ValueError) as error:  # a path with a zero byte is a ValueError
        hint = "Name a folder that holds config.json and model.safetensors"
        cause = getattr(error, "strerror", None) or str(error)
        raise CheckpointError(str(path), cause, hint) from None
