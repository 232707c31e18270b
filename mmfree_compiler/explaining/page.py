"""An explanation as one HTML page that needs no other file and no network.

The page is web/index.html with the style, the libraries, the scripts and the explanation put into
it. Scripts read the explanation as JSON and write every text of it as a text node. A policy in the
page lets exactly these scripts run, by their hashes, and forbids all requests.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from string import Template
from typing import Any

from mmfree_compiler.explaining.schema import Explanation
from mmfree_compiler.wording import printable

_WEB = files("mmfree_compiler.explaining") / "web"
# In the order in which the page runs them: each defines one name that later ones use.
_SCRIPTS = (
    "elements",
    "wording",
    "names",
    "tables",
    "differences",
    "passes",
    "layout",
    "graph",
    "details",
    "plots",
    "sections",
    "main",
)


def page(explanation: Explanation) -> str:
    """The page of `explanation`, about 2.5 MB; most of it are the libraries that draw it."""
    scripts = _scripts()
    hashes = " ".join(f"'sha256-{_digest(text)}'" for _, text in scripts)
    return Template(_text("index.html")).substitute(
        title=html.escape(printable(explanation.model.title)),
        policy=f"default-src 'none'; img-src data:; script-src {hashes}; style-src 'unsafe-inline'",
        style=_text("style.css"),
        data=_embedded(explanation),
        scripts="\n".join(f"<!-- {about} -->\n<script>{text}</script>" for about, text in scripts),
    )


def _embedded(explanation: Explanation) -> str:
    """JSON that no text of a model can leave: in a script element, only `<` could end it."""
    shown = _shown(json.loads(explanation.model_dump_json()))
    return json.dumps(shown, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _shown(value: Any) -> Any:
    """JSON whose texts may be shown: no character in them changes the order of others."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [_shown(item) for item in value]
    if isinstance(value, dict):
        return {printable(name): _shown(item) for name, item in value.items()}
    return value


@cache
def _scripts() -> tuple[tuple[str, str], ...]:
    """What each script is, and its text."""
    own = ((f"{name}.js", _text(f"scripts/{name}.js")) for name in _SCRIPTS)
    return (*_libraries(), *own)


def _libraries() -> Iterator[tuple[str, str]]:
    for name, library in tomllib.loads(_text("libraries/libraries.toml")).items():
        if path := library.get("file"):
            about = f"{name} {library['version']}, {library['licence']}, {library['source']}"
            yield about, _text(f"libraries/{path.rpartition('/')[2]}")


def _text(name: str) -> str:
    return (_WEB / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
