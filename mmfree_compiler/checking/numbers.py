"""Running a module with the numbers that its constants are folded with."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from mmfree_compiler.passes.arithmetic import apply


class Numbers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Numbers of a whole tensor, such as mean|w|, are those of the compiled model.

    torch's own depend on the threads, and a last bit carries some weights over their .5 edge.
    """

    def __torch_dispatch__(
        self, func: Any, _: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return apply(func, args, kwargs or {})
