"""A process that runs an artifact imports nothing of what compiled it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

APP = """
import sys
from mmfree_compiler.runtime import load

session = load(sys.argv[1], threads=1)
tokens = [token.id for token in session.generate("def ", max_new_tokens=4)]
assert len(tokens) == 4
heavy = {"torch", "tvm", "triton", "onnx", "networkx", "safetensors"} & sys.modules.keys()
assert not heavy, heavy
import torch  # what was held back is there afterwards

logits, state = session(torch.tensor([tokens]))
assert isinstance(logits, torch.Tensor)
"""


def test_decoding_imports_no_compiler(tiny_artifact: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", APP, str(tiny_artifact)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
