"""One small tokenizer of each family, as tokenizer.json.

All have U+FFFD among their tokens, the special token `<s>` and the added token `<note>`, which is
part of the text.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
LETTERS = "abcé日🎉. '" + REPLACEMENT


def _fallback() -> dict[str, int]:
    return {f"<0x{byte:02X}>": 3 + byte for byte in range(256)} | {"<unk>": 0, "<s>": 1}


def _byte_level() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: number for number, character in enumerate(alphabet)}
    merges = [("a", "b"), ("Ã", "©"), ("Ġ", "a"), ("©", "a")]
    vocabulary |= {a + b: 256 + n for n, (a, b) in enumerate(merges)}
    made = Tokenizer(models.BPE(vocabulary, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


def _llama() -> Tokenizer:
    """Prepend and Replace before, ByteFallback, Fuse and Strip after: no space is lost inside."""
    words = ["▁", "a", "b", "▁a", "ab", REPLACEMENT, "."]
    vocabulary = _fallback() | {word: 259 + n for n, word in enumerate(words)}
    merges = [("▁", "a"), ("a", "b")]
    model = models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    made = Tokenizer(model)
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    return made


def _unigram() -> Tokenizer:
    words = [*_fallback(), "▁", "a", "b", "▁ab", REPLACEMENT]
    pieces = [(word, -float(number)) for number, word in enumerate(words)]
    made = Tokenizer(models.Unigram(pieces, unk_id=words.index("<unk>"), byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    return made


def _wordpiece() -> Tokenizer:
    words = ["[UNK]", "a", "##b", "##é", "日", ".", "'", "##" + REPLACEMENT, REPLACEMENT, "n't"]
    made = Tokenizer(models.WordPiece({w: n for n, w in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    return made


def _word_level() -> Tokenizer:
    """Without a decoder: words are joined by spaces."""
    words = ["[UNK]", *LETTERS.replace(" ", "")]
    made = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return made


def _suffixed() -> Tokenizer:
    words = ["[UNK]", "a", "b", "a</w>", "b</w>", REPLACEMENT + "</w>", "ab</w>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    merges = [("a", "b</w>")]
    model = models.BPE(vocabulary, merges, unk_token="[UNK]", end_of_word_suffix="</w>")
    made = Tokenizer(model)
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.decoder = decoders.BPEDecoder("</w>")
    return made


FAMILIES: dict[str, Callable[[], Tokenizer]] = {
    "byte level": _byte_level,
    "llama": _llama,
    "unigram": _unigram,
    "wordpiece": _wordpiece,
    "word level": _word_level,
    "suffixed": _suffixed,
}


def source(family: str, **changes: Any) -> bytes:
    """tokenizer.json of a family, with some of its fields changed."""
    made = FAMILIES[family]()
    made.add_special_tokens([AddedToken("<s>", special=True, normalized=False)])
    made.add_tokens([AddedToken("<note>", lstrip=True, rstrip=True, normalized=True)])
    start = made.token_to_id("<s>")
    made.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", start)])
    return json.dumps(json.loads(made.to_str()) | changes).encode()
