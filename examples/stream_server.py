"""Serve a compiled model over HTTP; text is sent as it is generated.

    pip install 'mmfree-compiler[cli,examples]'
    python examples/stream_server.py build/demo.mmfree --threads 2
    curl -N localhost:8000/generate --json '{"prompt": "The list is", "seed": 1}'

All requests share one session, and their tokens take turns on its threads. A generation runs only
while its response is read, so it stops within a token when its client disconnects.
"""

from __future__ import annotations

import argparse

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field

from mmfree_compiler.errors import InputError
from mmfree_compiler.runtime import Session, load


class Prompt(BaseModel):
    """The body of a request: arguments of `Session.generate`."""

    prompt: str
    max_new_tokens: int = Field(128, ge=1, le=4096)  # no request may run without end
    temperature: float = 0.8
    top_p: float = 0.95
    seed: int | None = None


def make_app(session: Session) -> FastAPI:
    app = FastAPI(title="mmfree_compiler")

    @app.post("/generate")
    def generate(request: Prompt) -> StreamingResponse:
        generation = session.generate(**request.model_dump())  # checks all arguments, runs nothing
        # FastAPI reads an iterator in a worker thread, one `next` at a time, so that the event loop
        # stays free and each generation is used by one thread at a time.
        return StreamingResponse((token.text for token in generation), media_type="text/plain")

    @app.exception_handler(InputError)
    def refuse(_: Request, error: InputError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, status_code=422)

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serve a compiled model over HTTP.")
    parser.add_argument("model", help="a model.mmfree")
    parser.add_argument("--threads", type=int, help="default: all CPUs of this process")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    uvicorn.run(make_app(load(options.model, threads=options.threads)), port=options.port)
