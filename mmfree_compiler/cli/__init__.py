"""The command line: `mmfree compile | run | inspect | verify | train | bench | doctor`.

One command a file; torch and TVM are imported inside the commands that need them. Exit codes:
0 success, 1 an error or a failed verification, 2 wrong usage, 130 Ctrl-C.
"""

from __future__ import annotations

import io
import os
import sys


def main() -> None:
    """The entry point `mmfree`. Errors are one line on stderr; MMFREE_DEBUG shows tracebacks."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What a terminal cannot show, as stderr has it: models write any character.
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
    except OSError as error:  # the commands turn those of their own files into MmfreeErrors
        if os.environ.get("MMFREE_DEBUG"):
            raise
        sys.exit(f"mmfree: {error}")
    except Exception as error:
        if os.environ.get("MMFREE_DEBUG"):
            raise
        name, hint = type(error).__name__, "MMFREE_DEBUG=1 shows where"
        sys.exit(f"mmfree: unexpected {name}: {error}. This is a bug; {hint}")
