"""Gather `embedding`: token ids to rows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmfree_compiler.ops.register import op


def _fake(ids: Tensor, table: Tensor) -> Tensor:
    return table.new_empty((*ids.shape, table.shape[1]), dtype=torch.float32)


@op("gather", _fake, roles={"table": "table"})
def embedding(ids: Tensor, table: Tensor) -> Tensor:
    """`table[ids]` widened to fp32: ids (...) int64, table (V, D) of any float dtype."""
    return F.embedding(ids, table).float()
