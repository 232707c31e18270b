"""Keeps wording that a newcomer stumbles over out of code and documentation.

Every .py and .md file is read as running text: a phrase is found across line breaks and the # of
comments too.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HERE = Path(__file__).relative_to(ROOT).as_posix()  # has every wording in it


# What is counted or measured, and what it may be counted per.
COUNTED = (
    "adds|additions|bits|bytes|codes|columns|digits|elements|entries|fields|files|floats|ids|int32|"
    "int8|layers|lines|logits|loops|milliseconds|ms|multiply-adds|nats|numbers|ones?|products|"
    "repetitions|rows|samples|scales|seconds|sequences|states|steps|sums|threads|tokens|trits|"
    "weights|words"
)
PER = (
    "batch|block|byte|call|column|command|CPU|element|field|file|group|kernel|lane|layer|line|"
    "machine|measurement|minute|model|number|operation|parameter|pass|peer|process|prompt|row|"
    "second|sequence|shape|slot|stage|step|target|task|tensor|ternary|thread|tile|token|variant|"
    "vector|weight"
)

# What to write instead -> the wording that it replaces. A space matches any white space.
WORDING = {
    '"per", as in "tokens per second"': rf"(?<!many\s)(?<!the\s)\b({COUNTED}) an? ({PER})\b",
    '"per", as in "one file per pass"': rf"\b(an?|one|two|three|four) \w+ an? ({PER})\b",
    '"is not a", "are not"': r"(?<!there)(?<![\s#]) (?-i:is|are) (?-i:no|none)\b(?! (longer|more))",
    '"not a number", "not a string"': r"[\"'`}]\s?no (array|file|list|number|text|tuple|whole)\b",
    '"hint" or "fix"': r"\bmend(s|ed|ing)?\b",
    '"needs the most"': r"\bhungr(y|ier|iest)\b",
    '"other engines", "other formats"': r"\brivals?\b",
    '"is noise", "a random seed"': r"\b(keeps?|for|is) chance\b",
    '"forever"': r"\bfor ever\b",
    '"none of this project\'s"': r"\bnone of ours\b",
    '"architecture", "package", "public names"': r"\b(the|every|each) (houses?|rooms?|doors?)\b",
    '"called with"': r"\btold of\b",
    "which number": r"\bso many\b",
    '"is 12 bytes, the manifest says 10"': r"\bhas not (the|an?)\b",
    "what the name holds": r"\b_(torn|patience)\b",
}


def _found(pattern: str, text: str) -> list[int]:
    """The numbers of the lines where `pattern` begins."""
    spaced = re.compile(pattern.replace(" ", r"[\s#]+"), re.IGNORECASE)
    return [text.count("\n", 0, match.start()) + 1 for match in spaced.finditer(text)]


def _texts() -> dict[str, str]:
    """Path -> text of each tracked .py and .md file that is to be read."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "*.py", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    names = [name for name in listed.stdout.split("\0") if name and name != HERE]
    return {name: (ROOT / name).read_text(encoding="utf-8") for name in names}


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("fast:\ntokens\n    # a second", [2]),
        ("how many tokens a call takes, and the tokens a call takes", []),
        ("one pass a file, and a row a token", [1, 1]),
        ("this is no number\nand those are none", [1, 2]),
        ("there is no limit, there\n    are none, it is None, and it is no longer", []),
    ],
)
def test_phrases_are_found_in_running_text(text: str, lines: list[int]) -> None:
    assert [line for pattern in WORDING.values() for line in _found(pattern, text)] == lines


@pytest.mark.parametrize("instead", WORDING)
def test_wording_is_plain(instead: str) -> None:
    texts = _texts().items()
    places = [f"{name}:{n}" for name, text in texts for n in _found(WORDING[instead], text)]
    assert places == [], f"write {instead}"
