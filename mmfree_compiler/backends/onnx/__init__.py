"""The target "onnx": one ONNX model, which ONNX Runtime runs with the bits of all other targets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.explained import BuildFacts
from mmfree_compiler.backends.interface import Backend, Check
from mmfree_compiler.backends.onnx.checks import checks
from mmfree_compiler.backends.onnx.describe import describe
from mmfree_compiler.backends.onnx.explained import explained
from mmfree_compiler.backends.onnx.file import SUFFIX, read, write
from mmfree_compiler.backends.onnx.spec import Spec, parse
from mmfree_compiler.backends.own_files import Imported

if TYPE_CHECKING:
    from mmfree_compiler.backends.onnx.compile.compiler import OnnxCompiler
    from mmfree_compiler.backends.onnx.run.launcher import OnnxLauncher


class OnnxBackend:
    """See interface.Backend, own_files.OwnFiles and own_files.OthersEngine."""

    kind = "onnx"
    extra = "mmfree-compiler[onnx]"
    engine = "onnxruntime"
    formats = (SUFFIX, ".mmfree")
    options = ("threads", "providers", "optimizations")

    def parse(self, options: str) -> Spec:
        return parse(options)

    def here(self) -> Spec:
        return Spec()

    def checks(self) -> Iterable[Check]:
        return checks()

    def describe(self, artifact: Artifact) -> Mapping[str, str]:
        return describe(artifact)

    def explained(self, artifact: Artifact) -> BuildFacts:
        """See explained.Explained."""
        return explained(artifact)

    def compiler(self) -> OnnxCompiler:
        from mmfree_compiler.backends.onnx.compile.compiler import OnnxCompiler

        return OnnxCompiler()

    def launcher(self) -> type[OnnxLauncher]:
        from mmfree_compiler.backends.onnx.run.launcher import OnnxLauncher

        return OnnxLauncher

    def read(self, path: Path, verify: bool) -> Artifact:
        return read(path, verify)

    def imported(self, path: Path) -> Imported:
        from mmfree_compiler.backends.onnx.importing.importing import imported

        return imported(path)

    def write(self, artifact: Artifact, path: Path) -> None:
        write(artifact, path)


BACKEND: Backend = OnnxBackend()
