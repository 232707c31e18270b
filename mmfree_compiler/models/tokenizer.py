"""The byte-level tokenizer: ids 0..255 are the bytes, 256 is `<|endoftext|>`."""

from __future__ import annotations

from pathlib import Path

END_OF_TEXT = "<|endoftext|>"
END_OF_TEXT_ID = 256
VOCAB_SIZE = 257


def _byte_characters() -> list[str]:
    """The printable character that a byte-level vocabulary writes for each byte (from GPT-2).

    Printable Latin-1 bytes stand for themselves, the others for U+0100 and on, in order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (chr(0x100 + n) for n in range(256))
    return [chr(byte) if byte in printable else next(others) for byte in range(256)]


def save_byte_tokenizer(path: Path) -> None:
    """Write the tokenizer as a Hugging Face `tokenizers` tokenizer.json at `path`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {character: byte for byte, character in enumerate(_byte_characters())}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    tokenizer.save(str(path))
