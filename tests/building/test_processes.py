"""Child processes end with what started them."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from mmfree_compiler.building.processes import running

# Starts a process of its own, says its id, and waits.
DRIVER = "sleep 600 & echo $! >&2; wait"
# Starts a process that ends with it, says its id, and is killed.
KILLED = """
import os, signal, subprocess, sys
child = "import time\\nfrom mmfree_compiler.building.processes import end_with\\n"
child += f"end_with({os.getpid()}); print('ready', flush=True); time.sleep(600)"
pipe = subprocess.PIPE
process = subprocess.Popen([sys.executable, "-c", child], stdout=pipe)
process.stdout.readline()
print(process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def has_ended(pid: int) -> bool:
    """Within some seconds."""
    for _ in range(200):
        with suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                time.sleep(0.05)
                continue
        return True
    return False


def test_what_a_process_has_started_ends_with_the_block() -> None:
    with running(("sh", "-c", DRIVER), subprocess.PIPE) as driver:
        assert driver.stderr is not None
        grandchild = int(driver.stderr.readline())
        assert Path(f"/proc/{grandchild}").exists()
    assert driver.returncode == -9
    assert has_ended(grandchild)


def test_a_process_that_has_ended_is_not_killed() -> None:
    with running(("sh", "-c", "echo said >&2; exit 3"), subprocess.PIPE) as process:
        assert process.communicate()[1] == b"said\n"
    assert process.returncode == 3


@pytest.mark.skipif(sys.platform != "linux", reason="needs prctl")
def test_a_child_ends_when_its_parent_is_killed() -> None:
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, check=False)
    assert done.returncode == -9
    assert has_ended(int(done.stdout))


def test_a_child_whose_parent_has_ended_before_does_not_begin() -> None:
    code = "from mmfree_compiler.building.processes import end_with; end_with(1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert b"its parent has ended" in done.stderr
