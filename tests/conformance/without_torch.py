"""Whether compiled models have the reference's bits in a process without torch and Triton.

    PYTHONPATH=tests python -m conformance.without_torch make FOLDER
    PYTHONPATH=tests python -m conformance.without_torch make FOLDER --shape 370M --no-golden
    PYTHONPATH=tests python -m conformance.without_torch run FOLDER
    PYTHONPATH=tests python -m conformance.without_torch cycles FOLDER/demo.mmfree

`make` needs the compiler, but no GPU. `run` needs a GPU, and of the project the base install with
`[cuda-runtime]`; or no GPU and the base install alone, with models of `make --target cpu`. It
compares logits, states and texts in all ways of model_bits.WAYS, and goes on from states that the
reference saved. It ends with 1 if something differs.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from model_bits import WAYS, digest, ragged_digest, state_within, texts, tokens

from mmfree_compiler.backends.cuda.bindings import device_module
from mmfree_compiler.errors import TargetError
from mmfree_compiler.runtime import Session, State, load

app = typer.Typer(pretty_exceptions_enable=False)
READ = 9  # tokens before the state that is saved
_MOST_GROWTH = 8 << 20  # bytes


@app.command()
def make(
    folder: Annotated[Path, typer.Argument(help="Where models and results are written.")],
    target: Annotated[str, typer.Option(help="What to compile for.")] = "cuda:sm_90",
    shape: Annotated[str, typer.Option(help="Add a random model: 370M, 1.3B or 2.7B.")] = "",
    golden: Annotated[bool, typer.Option(help="The golden cases and the bundled model.")] = True,
) -> None:
    """Compile models; write what the reference makes of them."""
    import mmfree_compiler as mmf
    from mmfree_compiler.models import random_checkpoint

    folder.mkdir(parents=True, exist_ok=True)
    models = _models() if golden else {}
    if shape:
        random_checkpoint(folder / "checkpoint", shape)
        models[shape] = folder / "checkpoint"
    for name, checkpoint in models.items():
        mmf.compile(checkpoint, target, check=False).save(folder / f"{name}.mmfree")
        session = mmf.compile(checkpoint, "reference", check=False).session
        _, state = session(tokens(session)[:, :READ])
        state.save(folder / f"{name}.state")
        found = _found(session, state, whole=False)
        (folder / f"{name}.json").write_text(json.dumps(found))
        typer.echo(name)


def _models() -> dict[str, Path]:
    from golden_cases import golden_cases

    folders = {str(case): case.folder for case in golden_cases()}
    return folders | {"demo": Path(__file__).parents[2] / "demo"}


@app.command()
def run(folder: Annotated[Path, typer.Argument(help="What `make` wrote.")]) -> None:
    """Compare on this machine."""
    differing = 0
    for path in sorted(folder.glob("*.mmfree")):
        expected = json.loads(path.with_suffix(".json").read_text())
        with load(path) as session:
            state = State.load(path.with_suffix(".state"))
            found = _found(session, state, whole=True)
        wrong = sorted(k for k, value in found.items() if value != expected[k.partition(",")[0]])
        differing += len(wrong)
        typer.echo(f"{path.stem}: {len(found)} results, differing: {', '.join(wrong) or 'none'}")
    loaded = sorted({"torch", "triton"} & sys.modules.keys())
    typer.echo(f"imported: {', '.join(loaded) or 'neither torch nor Triton'}")
    sys.exit(bool(differing or loaded))


@app.command()
def cycles(
    path: Annotated[Path, typer.Argument(help="A model of `make`.")],
    times: Annotated[int, typer.Option(help="How often it is loaded and closed.")] = 1000,
) -> None:
    """Load, decode and close many times; end with 1 if memory grows."""
    before = None
    for n in range(times):
        with load(path) as session:
            for _ in session.generate([1], max_new_tokens=3, stop_tokens=()):
                pass
        if n == times // 10:  # what caches and allocators keep, they have by now
            before = _memory()
    assert before is not None
    growth = {what: after - before[what] for what, after in _memory().items()}
    typer.echo(", ".join(f"{what}: {size / 1e6:+.1f} MB" for what, size in growth.items()))
    sys.exit(any(size > _MOST_GROWTH for size in growth.values()))


def _memory() -> dict[str, int]:
    """Bytes that this process has on the host, and that are taken on the first GPU, if any."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    found = {"host": pages * os.sysconf("SC_PAGE_SIZE")}
    with suppress(TargetError), device_module().open_device() as device, device.current():
        from cuda.bindings import driver

        _, free, total = driver.cuMemGetInfo()
        found["GPU"] = total - free
    return found


def _found(session: Session, state: State, whole: bool) -> dict[str, Any]:
    return dict(_results(session, state, whole))


def _results(session: Session, state: State, whole: bool) -> Iterator[tuple[str, Any]]:
    """Results by name; what follows a comma is a way to the same. Not `whole`: in one way."""
    if whole:
        for _, batch, chunk in WAYS:
            yield f"digest, batch {batch}, chunks of {chunk}", digest(session, batch, chunk)
        yield "ragged, together", ragged_digest(session, together=True)
        yield "texts, together", texts(session, together=True)
    yield "digest", digest(session)
    yield "ragged", ragged_digest(session, together=False)
    yield "texts", texts(session, together=False)
    yield "a state within a generation", state_within(session)
    logits, _ = session(tokens(session)[:, READ : READ + 1], state)
    yield "after a state that was saved", np.asarray(logits).tobytes().hex()


if __name__ == "__main__":
    app()
