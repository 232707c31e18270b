"""Compile and measure models on this machine's CPU: `python benchmarks/cpu.py demo 370M 1.3B`.

"demo" is the bundled model; other names are published shapes with random weights, whose speed is
that of trained ones. Every step is a process of its own, the very commands that users have, so that
a peak of memory is the step's. docs/benchmarks.md says what the figures mean.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mmfree_compiler.doctor import examine

DEMO = "demo"
RANDOM_CHECKPOINT = "import sys; from mmfree_compiler.models import random_checkpoint as make; "


@dataclass(frozen=True)
class Row:
    """One model: what `mmfree compile --json` and `mmfree bench --json` said of it."""

    name: str
    compiled: dict[str, Any]
    measured: dict[str, Any]

    @property
    def memory_ratio(self) -> float:
        """The compiler's peak of resident memory over the checkpoint's size."""
        return float(self.compiled["peak_rss_bytes"] / self.compiled["checkpoint_bytes"])

    def cells(self, threads: dict[str, Any]) -> tuple[str, ...]:
        """A line of the table, for one of the thread counts."""
        return (
            self.name,
            f"{self.compiled['checkpoint_bytes'] / 1e6:,.0f}",
            f"{sum(self.compiled['seconds'].values()):.1f}",
            f"{self.compiled['peak_rss_bytes'] / 1e6:,.0f}",
            f"{self.memory_ratio:.2f}",
            f"{1e3 * self.measured['load_seconds']['median']:,.0f}",
            f"{self.measured['peak_rss_bytes'] / 1e6:,.0f}",
            str(threads["threads"]),
            f"{threads['prefill_tokens_per_second']['median']:,.0f}",
            f"{threads['decode_tokens_per_second']['median']:,.1f}",
            f"{threads['gigabytes_per_second']['median']:.1f}",
        )


HEADER = (
    *("model", "checkpoint MB", "compile s", "compile MB", "ratio", "load ms", "run MB"),
    *("threads", "prefill tok/s", "decode tok/s", "GB/s"),
)
WIDTH = 120  # characters, where the output is no terminal


def main(
    names: Annotated[list[str], typer.Argument(help="demo, 370M, 1.3B, 2.7B")],
    folder: Annotated[Path, typer.Option(help="For checkpoints and models.")] = Path("build/bench"),
    threads: Annotated[str, typer.Option()] = "1,2",
    output: Annotated[Path | None, typer.Option(help="Default: cpu.json in the folder.")] = None,
) -> None:
    """Measure each of the models; print a table and write all figures as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_measure(name, folder, threads) for name in names]
    table = Table(*HEADER, box=None)
    for row in rows:
        for figures in row.measured["threads"]:
            table.add_row(*row.cells(figures))
    Console(width=max(WIDTH, Console().width)).print(table)
    document = {
        "machine": _machine(),
        "models": {row.name: row.compiled | {"bench": row.measured} for row in rows},
    }
    path = output or folder / "cpu.json"
    path.write_text(json.dumps(document, indent=1) + "\n")


def _measure(name: str, folder: Path, threads: str) -> Row:
    model = folder / f"{name}.mmfree"
    compiled = _mmfree("compile", _checkpoint(name, folder), "-o", model)
    return Row(name, compiled, _mmfree("bench", model, "--threads", threads))


def _checkpoint(name: str, folder: Path) -> Path:
    """The bundled checkpoint, or a random one, which is kept for the next time."""
    if name == DEMO:
        from mmfree_compiler.models import demo_path

        return demo_path()
    path = folder / name
    if not path.exists():
        _python("-c", RANDOM_CHECKPOINT + "make(sys.argv[1], sys.argv[2])", path, name)
    return path


def _mmfree(*arguments: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_python("-m", "mmfree_compiler.cli", *arguments, "--json"))
    return found


def _python(*arguments: str | Path) -> str:
    """What another Python prints; its errors go where this one's do, and end this one too."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise typer.Exit(done.returncode)
    return done.stdout


def _machine() -> dict[str, str]:
    found = {check.name: check.found for check in examine()}
    return {"system": platform.platform(), "processor": _processor(), **found}


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


if __name__ == "__main__":
    typer.run(main)
