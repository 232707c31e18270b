"""What is measured on a GPU: benchmarks/tasks.py with other sizes."""

from __future__ import annotations

from benchmarks.tasks import Task

LOAD = Task("load")
TASKS = {
    task.name: task
    for task in (
        LOAD,
        *(Task("decode", size) for size in (1, 4, 8, 16, 64, 256)),
        *(Task("prefill", size) for size in (512, 2048)),
    )
}
