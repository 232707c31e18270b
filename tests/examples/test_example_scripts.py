"""The scripts in examples/ run as their docstrings say."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mmfree_compiler.runtime import load

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def _command(script: str, *arguments: object) -> list[str]:
    return [sys.executable, str(EXAMPLES / script), *map(str, arguments)]


def _run(script: str, *arguments: object, typed: str = "") -> str:
    """What a script prints; its errors are the test's message when it fails."""
    done = subprocess.run(
        _command(script, *arguments), input=typed, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_chat_continues_from_turn_to_turn(tiny_artifact: Path) -> None:
    printed = _run("chat.py", tiny_artifact, "--max-new-tokens", 5, typed="The list\n\nand\n")
    assert printed.count("> ") >= 4  # a prompt for each line, and one for the end of input


def test_chat_passes_the_state_on(tiny_artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import chat

    session = load(tiny_artifact, 1)
    first = chat.reply(session, "The list", None, 5)
    assert first is not None
    second = chat.reply(session, "and", first, 5)
    assert second is not None
    assert (first.length, second.length) == ((8 + 5,), (8 + 5 + 3 + 5,))
    assert capsys.readouterr().out.count("\n") >= 2


def test_ctrl_c_ends_a_reply_and_not_the_chat(tiny_artifact: Path) -> None:
    command = _command("chat.py", tiny_artifact, "--max-new-tokens", 10**9)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as chat:
        assert chat.stdin is not None
        assert chat.stdout is not None
        chat.stdin.write(b"The list\n")
        chat.stdin.flush()
        assert len(chat.stdout.read(100)) == 100  # it is in the middle of its reply
        chat.send_signal(signal.SIGINT)
        rest, _ = chat.communicate(timeout=60)  # closes stdin, which ends the chat
    assert chat.returncode == 0
    assert rest.endswith(b" [stopped; this turn is forgotten]\n> \n")


def test_batch_file_writes_a_line_per_prompt(tiny_artifact: Path, tmp_path: Path) -> None:
    prompts = ["The list", " of", "numbers: ", "é", "is"]
    lines, output = tmp_path / "prompts.txt", tmp_path / "completions.jsonl"
    lines.write_text("\n\n".join(prompts), encoding="utf-8")
    found = []
    for batch in (2, 5):
        _run("batch_file.py", tiny_artifact, lines, output, "--batch", batch)
        found.append([json.loads(line) for line in output.read_text().splitlines()])
    assert found[0] == found[1]
    assert [result["prompt"] for result in found[0]] == prompts
    session = load(tiny_artifact, 1)
    alone = session.generate(prompts[3], max_new_tokens=64, temperature=0.7, seed=3)
    assert found[0][3]["text"] == "".join(token.text for token in alone)


def test_own_module_agrees_with_torch(tmp_path: Path) -> None:
    path = tmp_path / "block.mmfree"
    printed = _run("own_module.py", path)
    assert all(float(number) < 1e-3 for number in re.findall(r"(\S+) at most", printed))
    assert printed.count("at most") == 2
    assert path.stat().st_size > 0
