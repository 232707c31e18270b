"""What documents say of each backend, and where."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmfree_compiler import backends

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("kind", sorted(backends.kinds()))
def test_documents_say_once_what_a_backend_is(kind: str) -> None:
    page = f"docs/targets/{kind}.md"
    assert (ROOT / page).is_file()
    assert (ROOT / "README.md").read_text().count(f"]({page})") == 1
    assert (ROOT / "docs/architecture.md").read_text().count(f"| `backends/{kind}/` |") == 1
