"""A child process that runs one peer for one task: `python -m benchmarks.gpu.worker JOB`.

It prints the facts of the opened model, then answers every line of its input with a line
`{"seconds": ...}`, until its input ends. A job without a task prepares the peer's files, prints
what that returned, and ends.
"""

from __future__ import annotations

import sys

from benchmarks.gpu.peers import PEERS, GpuJob
from benchmarks.worker import own_stdout, say


def main(job: GpuJob) -> None:
    """Prepare, or open and serve."""
    answers = own_stdout()
    module = PEERS[job.peer].load()
    if job.task is None:
        say(answers, module.prepare(job))
        return
    opened = module.open_model(job)
    opened.sample()  # the first one warms up
    say(answers, dict(opened.facts))
    for _ in sys.stdin:
        say(answers, {"seconds": opened.sample()})


if __name__ == "__main__":
    main(GpuJob.parse(sys.argv[1]))
