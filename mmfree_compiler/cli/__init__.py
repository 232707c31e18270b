"""The command line: `mmfree COMMAND`; app.py has the table of commands.

Each command has a file of its own. torch and TVM are imported inside the commands that need them.
Exit codes: 0 success, 1 an error or a failed check, 2 wrong usage, 128 + the number of the signal
that ended it: 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP.
"""

from __future__ import annotations

import io
import sys

from mmfree_compiler import debug, interrupts


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
    except OSError as error:  # of stdout: commands report their own files as an MmfreeError
        if debug.tracebacks():
            raise
        sys.exit(f"mmfree: stdout: {error.strerror or error}")
    except Exception as error:
        if debug.tracebacks():
            raise
        cause = f"unexpected {type(error).__name__}: {error}"
        sys.exit(f"mmfree: {cause}. This is a bug; MMFREE_DEBUG=1 shows where")
