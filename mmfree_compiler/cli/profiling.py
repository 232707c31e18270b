"""`mmfree bench --profile`: the parts of a decode step, each beside what bounds it."""

from __future__ import annotations

from pathlib import Path

from mmfree_compiler.cli.output import emit
from mmfree_compiler.errors import InputError, TargetError
from mmfree_compiler.tables import facts
from mmfree_compiler.target import DEFAULT_TARGET, Target

HINT = "Name the checkpoint: stages are measured where the model is compiled"


def show_profile(model: Path | None, target: str | None, threads: int, json: bool) -> None:
    """Compile a checkpoint, measure it here, and print a row for each stage and its parts.

    Raises InputError on a compiled model, TargetError where the target cannot measure here.
    """
    from mmfree_compiler import backends, compiler
    from mmfree_compiler.explaining.text import ceilings, decode, profile_table

    if model is None or not model.is_dir():
        raise InputError("--profile", "needs a checkpoint folder", HINT)
    chosen = Target.parse(target or DEFAULT_TARGET)
    backend = backends.get(chosen.kind)
    backend.here()  # raises where nothing can run: compiling takes a while
    taken = threads if "threads" in backend.options else None
    compiled = compiler.compile(model, chosen, check=False, threads=taken)
    part = compiled.explain(measure=True).targets[0]
    if part.decode_us is None:
        raise TargetError(f"target {part.target}", "; ".join(part.missing), "Choose another target")
    rows = [
        ("target", part.target),
        ("build", part.runs_here),
        ("ceilings", ceilings(part)),
        ("a decode step", decode(part)),
    ]
    emit(json, part.model_dump(mode="json"), facts(rows), profile_table(part))
