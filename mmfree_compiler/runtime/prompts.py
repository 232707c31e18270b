"""How the text of a prompt is read."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

from mmfree_compiler.errors import InputError
from mmfree_compiler.wording import given

MAX_PROMPT_BYTES = 1 << 20  # of UTF-8; the tokenizers package takes about 190 times as much memory


@dataclass(frozen=True)
class Reading:
    """How the text of a prompt is read. Raises InputError.

    allow_special_tokens: special tokens that are written in the text are those tokens; otherwise
    they are plain text, so that a user's text cannot end a turn or begin another.
    max_prompt_bytes: longer texts are refused, since they take memory before they take time.
    """

    allow_special_tokens: bool = False
    max_prompt_bytes: int = MAX_PROMPT_BYTES

    def __post_init__(self) -> None:
        limit = self.max_prompt_bytes
        if not isinstance(limit, Integral) or limit < 1:
            cause = f"{given(limit)} is not a whole number from 1"
            raise InputError(
                "max_prompt_bytes", cause, "Choose how many bytes of UTF-8 a text may have"
            )

    def check(self, text: str) -> None:
        """Raise InputError on a text that is too long or not valid Unicode (lone surrogates)."""
        if len(text) > self.max_prompt_bytes:  # without encoding it first
            raise self._too_long(f"has {len(text):,} characters")
        try:
            size = len(text.encode())
        except UnicodeEncodeError as error:
            hint = "Remove the invalid characters"
            raise InputError("prompt", f"is not valid text: {error}", hint) from error
        if size > self.max_prompt_bytes:
            raise self._too_long(f"has {size:,} bytes")

    def _too_long(self, cause: str) -> InputError:
        hint = f"Pass at most {self.max_prompt_bytes:,} bytes, or a larger `max_prompt_bytes`"
        return InputError("prompt", cause, hint)


PLAIN = Reading()
