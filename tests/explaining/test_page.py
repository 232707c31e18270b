"""The text of the page: what it may run, what it may load, and what a model can put into it."""

from __future__ import annotations

import base64
import hashlib
import re
import tomllib
from pathlib import Path

import pytest
from explanation_samples import explanation
from typer.testing import CliRunner

from mmfree_compiler.cli.app import app
from mmfree_compiler.explaining import page as page_module
from mmfree_compiler.explaining.schema import Explanation
from mmfree_compiler.wording import printable

WEB = Path(page_module.__file__).with_name("web")
LIBRARIES = tomllib.loads((WEB / "libraries/libraries.toml").read_text())
SCRIPT = re.compile(r"<script([^>]*)>(.*?)</script>", re.DOTALL)
DATA = ' type="application/json" id="explanation"'  # the attributes of its element


def test_the_policy_lets_these_scripts_run_and_nothing_be_loaded() -> None:
    text = explanation().html()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    digests = [
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        for attributes, script in SCRIPT.findall(text)
        if not attributes
    ]
    assert rules.pop("script-src").split() == [f"'sha256-{digest}'" for digest in digests]
    assert rules == {"default-src": "'none'", "img-src": "data:", "style-src": "'unsafe-inline'"}


def test_the_explanation_can_be_read_back() -> None:
    whole = explanation("</script><!-- & \N{SNOWMAN}")
    found = dict(SCRIPT.findall(whole.html()))[DATA]
    assert Explanation.from_json(found) == whole


def test_characters_that_act_on_others_are_escaped() -> None:
    name = "\u202eright to left\u2066\u2028\x1b[31m\x85"
    found = dict(SCRIPT.findall(explanation(name).html()))[DATA]
    assert Explanation.from_json(found) == explanation(printable(name))


def test_the_command_writes_the_page(tmp_path: Path, tiny_checkpoint: Path) -> None:
    path = tmp_path / "page.html"
    arguments = ["explain", tiny_checkpoint, "--target", "reference", "--no-measure", "--quiet"]
    result = CliRunner().invoke(app, [*map(str, arguments), "--format", "html", "-o", str(path)])
    assert result.exit_code == 0, result.stderr
    found = dict(SCRIPT.findall(path.read_text()))[DATA]
    assert Explanation.from_json(found).model.layers == 2


def test_no_text_of_a_model_is_markup() -> None:
    text = explanation("<img src=x onerror=run()>").html()
    assert "<img" not in text
    assert "<title>model &lt;img src=x onerror=run()&gt;, explained</title>" in text


def test_a_name_of_the_template_is_only_a_name() -> None:
    assert "<title>model $style, explained</title>" in explanation("$style").html()


@pytest.mark.parametrize("name", LIBRARIES)
def test_libraries_are_those_that_are_pinned(name: str) -> None:
    """`make libraries` fetches them."""
    library = LIBRARIES[name]
    base = name.rpartition("/")[2]
    assert (WEB / f"libraries/{base}.LICENSE").stat().st_size > 0
    if "file" in library:
        content = (WEB / "libraries" / Path(library["file"]).name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == library["sha256"]
    else:
        assert "file" in LIBRARIES[library["inside"]]


def test_every_file_is_part_of_the_page() -> None:
    pinned = {Path(library["file"]).name for library in LIBRARIES.values() if "file" in library}
    assert {path.name for path in WEB.glob("libraries/*.js")} == pinned
    own = {path.stem for path in WEB.glob("scripts/*.js")}
    text = explanation().html()
    assert all(f"<!-- {name}.js -->" in text for name in own)


def test_the_licences_of_the_libraries_are_those_of_the_distribution() -> None:
    project = tomllib.loads((WEB.parents[2] / "pyproject.toml").read_text())["project"]
    assert {library["licence"] for library in LIBRARIES.values()} == (
        set(project["license"].split(" AND ")) - {"Apache-2.0"}
    )


def test_scripts_parse_no_markup() -> None:
    forbidden = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\("
    )
    own = {path.name: path.read_text() for path in WEB.glob("scripts/*.js")}
    assert [name for name, text in own.items() if forbidden.search(text)] == []
