"""The streaming server of examples/, in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mmfree_compiler.runtime import Generation, Session, load

pytest.importorskip("fastapi", reason="the server needs the extra `examples`")
pytest.importorskip("uvicorn", reason="the server needs the extra `examples`")
anyio = pytest.importorskip("anyio")

if TYPE_CHECKING:
    from fastapi.testclient import TestClient


@pytest.fixture(scope="module")
def session(tiny_artifact: Path) -> Session:
    return load(tiny_artifact, 1)


@pytest.fixture(scope="module")
def client(session: Session) -> TestClient:
    from fastapi.testclient import TestClient
    from stream_server import make_app

    return TestClient(make_app(session))


def test_text_comes_in_pieces(session: Session, client: TestClient) -> None:
    body = {"prompt": "The list", "max_new_tokens": 20, "seed": 1}
    with client.stream("POST", "/generate", json=body) as answer:
        pieces = list(answer.iter_text())
    assert answer.status_code == 200
    alone = session.generate("The list", max_new_tokens=20, temperature=0.8, top_p=0.95, seed=1)
    assert "".join(pieces) == "".join(token.text for token in alone)
    assert len(pieces) > 1


@pytest.mark.parametrize(
    "wrong", [{"prompt": ""}, {"temperature": -1}, {"max_new_tokens": 0}, {"max_new_tokens": 10**9}]
)
def test_wrong_requests_are_refused(client: TestClient, wrong: dict[str, Any]) -> None:
    answer = client.post("/generate", json={"prompt": "The list"} | wrong)
    assert answer.status_code == 422
    assert next(iter(wrong)) in answer.text


def test_a_client_that_disconnects_stops_its_generation(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stream_server import make_app

    started: list[Generation] = []
    plain = session.generate

    def remember(prompt: str, **settings: Any) -> Generation:
        started.append(plain(prompt, **settings))
        return started[-1]

    monkeypatch.setattr(session, "generate", remember)
    anyio.run(_request_and_leave, make_app(session))
    (generation,) = started
    assert 0 < len(generation.tokens) < 20
    assert generation.finish_reason is None


async def _request_and_leave(app: Any) -> None:
    """Ask for 4,000 tokens, as a server's connection would, and go after five pieces of text."""
    body = json.dumps({"prompt": "The list", "max_new_tokens": 4000}).encode()
    enough = anyio.Event()
    incoming = [{"type": "http.request", "body": body, "more_body": False}]
    sent = []

    async def receive() -> dict[str, Any]:
        if incoming:
            return incoming.pop()
        await enough.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)
        if len(sent) > 5:
            enough.set()

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/generate", "headers": headers}
    await app(scope | {"query_string": b"", "asgi": {"spec_version": "2.3"}}, receive, send)
