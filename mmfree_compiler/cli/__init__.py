"""The command line: `mmfree COMMAND`; app.py has the table of commands.

Each command has a file of its own. torch and TVM are imported inside the commands that need them.
Exit codes: 0 success, 1 an error or a failed check, 2 wrong usage, 128 + the number of the signal
that ended it: 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP, 141 a closed pipe.
"""

from __future__ import annotations

import io
import os
import signal
import sys

from mmfree_compiler import debug, interrupts
from mmfree_compiler.wording import printable

# How torch's threads wait for each other. OpenMP's own way is to spin for milliseconds, which takes
# the CPUs from the threads that are waited for: beside busy processes, training is 60 times slower.
# These spin about as long as it takes to wake a thread, and then sleep.
WAITING = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "1000"}
# What a shell reports of programs that SIGPIPE ends, as `head` ends those in front of it. It says
# nothing, and is not 0: with `set -o pipefail` a script can tell that output was cut. The signal
# itself stays ignored, since it would end the process with its temporary files left behind.
PIPE_CLOSED = 128 + signal.SIGPIPE


def main() -> None:
    """The entry point `mmfree`. Errors are one line on stderr; MMFREE_DEBUG shows tracebacks."""
    interrupts.raise_interrupted()  # before all imports that take long
    try:
        _main()
    except KeyboardInterrupt as interrupt:
        sys.exit(interrupts.exit_code(interrupt))
    finally:
        interrupts.end_at_once()


def _main() -> None:
    for name, value in WAITING.items():  # read when torch is imported
        os.environ.setdefault(name, value)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Models may write any character; one that stdout cannot encode is escaped, as on stderr.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        from mmfree_compiler.cli.app import app
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        if missing not in ("typer", "rich"):
            raise
        sys.exit(f"mmfree needs {missing}: pip install 'mmfree-compiler[cli]'")
    try:
        app(prog_name="mmfree")
    except SystemExit as ended:  # click makes a quiet exit with code 1 of a closed pipe
        if isinstance(ended.__context__, BrokenPipeError):
            sys.exit(PIPE_CLOSED)
        raise
    except OSError as error:  # of stdout: commands report their own files as an MmfreeError
        if debug.tracebacks():
            raise
        sys.exit(f"mmfree: stdout: {error.strerror or error}")
    except Exception as error:
        if debug.tracebacks():
            raise
        cause = f"unexpected {type(error).__name__}: {error}"
        sys.exit(f"mmfree: {printable(cause)}. This is a bug; MMFREE_DEBUG=1 shows where")
