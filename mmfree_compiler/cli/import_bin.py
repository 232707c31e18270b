"""`mmfree import-bin`: converts pytorch_model.bin to model.safetensors."""

from __future__ import annotations

from mmfree_compiler.cli.options import CheckpointPath, Json
from mmfree_compiler.cli.output import emit
from mmfree_compiler.tables import facts, size


def import_bin(checkpoint: CheckpointPath, json: Json = False) -> None:
    """Convert the pytorch_model.bin of a checkpoint to model.safetensors, running nothing of it."""
    from mmfree_compiler.models.import_bin import import_bin as convert
    from mmfree_compiler.models.weight_files import WEIGHTS

    tensors = convert(checkpoint)
    written = checkpoint / WEIGHTS
    document = {
        "weights": str(written),
        "tensors": len(tensors),
        "bytes": written.stat().st_size,
    }
    rows = (
        ("weights", str(written)),
        ("tensors", f"{len(tensors):,}"),
        ("size", size(written.stat().st_size)),
    )
    emit(json, document, facts(rows))
