"""Importing tvm_ffi without torch, which it would import if installed: seconds and 200 MB."""

from __future__ import annotations

import sys

# An entry of None makes `import torch` fail, as if torch were not installed.
if "torch" in sys.modules:
    import tvm_ffi as tvm_ffi
else:
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        import tvm_ffi as tvm_ffi
    finally:
        del sys.modules["torch"]
