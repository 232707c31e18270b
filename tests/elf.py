"""What a shared library asks of others: the undefined symbols of a 64-bit little-endian ELF file.

The System V ABI, chapters 4 and 5: https://refspecs.linuxfoundation.org/elf/gabi4+/contents.html
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_SECTION = struct.Struct("<LLQQQQLLQQ")  # name, type, flags, address, offset, size, link, ...
_SYMBOL = struct.Struct("<LBBHQQ")  # name, info, other, section, value, size
_DYNSYM = 11  # the type of the section of dynamic symbols


def undefined_symbols(code: bytes) -> set[str]:
    """Names that the library `code` imports."""
    sections = list(_sections(code))
    (found,) = (section for section in sections if section[1] == _DYNSYM)
    offset, size, names = found[4], found[5], sections[found[6]][4]
    symbols = _SYMBOL.iter_unpack(code[offset : offset + size])
    return {
        _text(code, names + name) for name, _, _, section, *_ in symbols if name and not section
    }


def _sections(code: bytes) -> Iterator[tuple[int, ...]]:
    (start,) = struct.unpack_from("<Q", code, 40)
    size, count = struct.unpack_from("<HH", code, 58)
    return (_SECTION.unpack_from(code, start + i * size) for i in range(count))


def _text(code: bytes, start: int) -> str:
    return code[start : code.index(0, start)].decode()
