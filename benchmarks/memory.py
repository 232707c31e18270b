"""Memory: what decoding took, and what it would take for models that were not measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.peers import OURS
from benchmarks.shapes import Shape
from benchmarks.tables import NOTHING, megabytes, table
from benchmarks.tasks import TASKS

if TYPE_CHECKING:
    from benchmarks.report import Group

# Widths of well-known 7B, 8B, 13B and 70B models.
LARGER = (
    Shape("7B", 4096, 32, 11008, 32_000),
    Shape("8B", 4096, 32, 14336, 128_256),
    Shape("13B", 5120, 40, 13824, 32_000),
    Shape("70B", 8192, 80, 28672, 128_256),
)
CALCULATED = """Larger models, calculated from the same bytes and not measured. 1.6 bits
are a tenth of fp16's 16, so the paper's "more than 10x" is reached with large vocabularies: the
embedding, which fp16 keeps in memory and mmfree does not, then outweighs what a process needs."""


def measured(groups: Sequence[Group]) -> str:
    """One row per shape for which decoding at batch 1 was measured."""
    header = (
        *("model", "packed weights", "decoding, peak", "over the weights"),
        *("torch fp32", "fp32 / ours", "torch fp16", "fp16 / ours", "torch fp32, peak"),
    )
    return table(header, map(_row, _alone(groups)))


def _alone(groups: Sequence[Group]) -> list[Group]:
    """Decoding at batch 1 with the fewest threads: the process that did nothing else before."""
    own = [group for group in groups if group.task == TASKS["decode-1"] and OURS in group.seconds]
    first = {group.shape.name: group for group in reversed(own)}
    return list(reversed(first.values()))


def _row(group: Group) -> tuple[str, ...]:
    packed, peak = group.weight_bytes[OURS], group.peak_rss_bytes[OURS]
    fp32, fp16 = 4 * group.shape.parameters, 2 * group.shape.parameters
    torch = group.peak_rss_bytes.get("torch")
    return (
        *(group.shape.name, megabytes(packed), megabytes(peak), megabytes(peak - packed)),
        *(megabytes(fp32), f"{fp32 / peak:.1f}", megabytes(fp16), f"{fp16 / peak:.1f}"),
        megabytes(torch) if torch else NOTHING,
    )


def calculated(groups: Sequence[Group]) -> str:
    """LARGER, from the measured shapes: their bytes per weight, and the largest overhead."""
    found = _alone(groups)
    if not found:
        return ""
    extra = max(group.peak_rss_bytes[OURS] - group.weight_bytes[OURS] for group in found)
    density = max(group.weight_bytes[OURS] / _ternary(group.shape) for group in found)
    rows = []
    for shape in LARGER:
        peak, fp16 = density * _ternary(shape) + extra, 2 * shape.parameters
        vocabulary = f"{shape.vocabulary:,}"
        rows.append(
            (shape.name, vocabulary, megabytes(peak), megabytes(fp16), f"{fp16 / peak:.1f}")
        )
    return table(("model", "vocabulary", "decoding", "torch fp16", "fp16 / ours"), rows)


def _ternary(shape: Shape) -> int:
    return shape.body_weights + shape.head_weights
