"""Errors in the words of the command line: its options in place of Python's arguments."""

from __future__ import annotations

import re
from typing import Any

from mmfree_compiler.errors import InputError, MmfreeError

# How a hint names an argument of a call: `max_prompt_bytes`, `allow_special_tokens=True`.
_ARGUMENT = re.compile(r"`(\w+)(=True)?`")


def in_options(error: MmfreeError, command: Any) -> str:
    """The text of `error` as users of `command`, a click.Command, know its arguments.

    An InputError is about the argument that it begins with.
    """
    options = _options(command)
    text = str(error)
    first = error.thing.split(" ")[0]
    if isinstance(error, InputError) and first in options:
        text = options[first] + text.removeprefix(first)
    return _ARGUMENT.sub(lambda found: options.get(found[1], found[0]), text)


def _options(command: Any) -> dict[str, str]:
    """What the arguments of Python behind a command's options are called -> the options."""
    return {
        option.name: max(option.opts, key=len)
        for option in command.params
        if option.param_type_name == "option"
    }
