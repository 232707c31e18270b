"""The example backend, as docs/extending.md has it, installed into a folder."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "extending.md"
_BLOCK = re.compile(r"^`(?P<name>[\w./]+)`:\n\n```\w+\n(?P<text>.*?)^```$", re.M | re.S)


def files_of_the_page() -> dict[str, str]:
    """The backend's files, which the page shows in full, by their path."""
    return {name: text for name, text in blocks().items() if not name.startswith(("ops", "passes"))}


def blocks() -> dict[str, str]:
    """Every file that the page shows in full, by its path."""
    return {found["name"]: found["text"] for found in _BLOCK.finditer(PAGE.read_text())}


def install(folder: Path) -> None:
    """Write the page's files into `folder`, and what tells Python that a package is installed."""
    files = files_of_the_page()
    project = tomllib.loads(files["pyproject.toml"])["project"]
    name, version = project["name"], project["version"]
    (group,) = project["entry-points"]
    entries = [f"{kind} = {value}" for kind, value in project["entry-points"][group].items()]
    about = f"{name.replace('-', '_')}-{version}.dist-info"
    files[f"{about}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files[f"{about}/entry_points.txt"] = "\n".join([f"[{group}]", *entries, ""])
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
