"""What a tokenizer has to keep to, so that no text or token makes it fail later."""

from __future__ import annotations

from mmfree_compiler.errors import ArtifactError, MmfreeError
from mmfree_compiler.runtime.tokenizer import Tokenizer

# Ordinary text, and characters that hardly any vocabulary has: they need its unknown token.
_PROBES = ("a", "The list is 1.", "é\N{HIRAGANA LETTER A}", "\N{CUNEIFORM SIGN A}\u0378\0")
HINT = "Take the model's own tokenizer"


def check_tokenizer(tokenizer: Tokenizer, vocab_size: int) -> None:
    """Raise ArtifactError unless the tokenizer reads any text, as ids below `vocab_size`.

    It may know fewer ids than the model: embeddings are often padded.
    """
    beyond = {token: number for token, number in tokenizer.ids.items() if number >= vocab_size}
    if beyond:
        token, number = max(beyond.items(), key=lambda item: item[1])
        cause = f"has the id {number} ({token!r}), but the model has {vocab_size:,} ids"
        raise ArtifactError("tokenizer.json", cause, HINT)
    tokenizer.decode(range(vocab_size))
    for text in _PROBES:
        _check_encoding(tokenizer, text, vocab_size)


def _check_encoding(tokenizer: Tokenizer, text: str, vocab_size: int) -> None:
    try:
        ids = tokenizer.encode(text)
    except MmfreeError as error:
        cause = f"cannot encode {text!r}: {error.cause}"
        raise ArtifactError("tokenizer.json", cause, HINT) from error
    if ids.size and ids.max() >= vocab_size:
        cause = f"adds the id {ids.max()} to a text, but the model has {vocab_size:,} ids"
        raise ArtifactError("tokenizer.json", cause, HINT)
