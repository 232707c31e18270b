"""Compiled modules of torch, in the process that interprets kernels: torch's CPU is the device."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from cuda_models import IDS, Pair, session
from op_modules import mm
from torch import Tensor, nn

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.cuda.run import calls
from mmfree_compiler.backends.cuda.run.embedded import CudaKernels
from mmfree_compiler.errors import MmfreeError
from mmfree_compiler.in_torch import CompiledModule, compiled_module
from mmfree_compiler.in_torch.op import run_compiled
from mmfree_compiler.runtime import Session

INTEGERS = [torch.int8, torch.int32, torch.uint8, torch.uint16, torch.uint32, torch.uint64]


@contextmanager
def opened(host: Session) -> Iterator[CompiledModule]:
    """The module of a session's artifact, with the session's executor."""
    executor: Any = host.launcher._executor  # type: ignore[attr-defined]

    def kernels(_: type, artifact: Artifact, device: int) -> CudaKernels:
        assert device == 0
        return CudaKernels(artifact, artifact.entry.builds[0], executor)

    with mock.patch.object(CudaKernels, "open", classmethod(kernels)):
        yield compiled_module(host.artifact)


class Recurrent(nn.Module):
    """Rows of a table, a scan, a gate: a language model that the interpreter is fast at."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer(
            "table", torch.randn(19, 19, generator=torch.Generator().manual_seed(3))
        )

    def forward(self, ids: Tensor) -> Tensor:
        x = mm.embedding(ids, self.table)
        h: Tensor = mm.mul(mm.mlgru_scan(x, mm.sigmoid(x), None), x)
        return h


def language_model() -> list[str]:
    """What differs from the host's session: logits, states, chunks; whether states are kept."""
    ids = torch.randint(0, 19, (3, 7), generator=torch.Generator().manual_seed(1))
    host = session(Recurrent(), IDS)
    with opened(host) as module, mock.patch.object(calls, "CHUNK", 8):
        logits, state = module(ids[:, :5])
        kept = state.clone()
        found = [logits, module(ids[:, 5:].int(), state)[0], module(ids[:, 5:], state)[0]]
    expected, there = host(ids[:, :5])
    then, _ = host(ids[:, 5:], there)
    same = map(torch.equal, found, [expected, then, then])
    differing = [f"run {k}" for k, equal in enumerate(same) if not equal]
    return differing + ([] if torch.equal(kept, state) else ["the state that was passed"])


def outside() -> list[Any]:
    """Whether logits of each token are NaN, and whether those of another sequence are."""
    ids = torch.tensor([[1, -1, 1], [1, 18, 19], [1, 2, 3]])
    with opened(session(Recurrent(), IDS)) as module:
        found: list[Any] = module(ids)[0].isnan().any(2).tolist()
        return found


def rows() -> list[str]:
    """A module of rows, from strided tensors, also below torch.compile."""
    x, y = torch.randn(2, 5, 2, 17, generator=torch.Generator().manual_seed(2))[:, :, 1]
    expected = Pair()(x, y)
    with opened(session(Pair(), (x[:1], y[:1]))) as module:
        traced = torch.compile(module, backend="aot_eager", fullgraph=True)
        longer = traced(*(z.repeat(2, 1) for z in (x, y)))
        runs = {"eager": module(x.double(), y), "compiled": traced(x, y), "longer": longer}
    runs["longer"] = [y[:5] for y in runs["longer"]]
    return [
        f"{name} {k}"
        for name, made in runs.items()
        for k, (a, b) in enumerate(zip(made, expected, strict=True))
        if not torch.equal(a, b)
    ]


def traced() -> list[str]:
    """What torch's own checks of custom ops find, and what torch.compile changes."""
    ids = torch.randint(0, 19, (2, 3), generator=torch.Generator().manual_seed(1))
    with opened(session(Recurrent(), IDS)) as module:
        arguments = (module.weights, [ids], module.zeros(2), module.runnable.key)
        checked = torch.library.opcheck(run_compiled, arguments)
        compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
        state = None
        differing = [f"{name}: {found}" for name, found in checked.items() if found != "SUCCESS"]
        for piece in (ids, ids[:, :1], ids[:, :2]):
            found, expected = compiled(piece, state), module(piece, state)
            differing += [] if all(map(torch.equal, found, expected)) else [str(piece.shape)]
            state = found[1]
    return differing


def saved(folder: Path) -> list[str]:
    """Writes a traced and an exported copy of a module, which run it while it lives."""
    ids = torch.tensor([[1, 2, 3]])
    with opened(session(Recurrent(), IDS)) as module:
        traced: Any = torch.jit.trace(module, (ids,))  # type: ignore[no-untyped-call]
        exported = torch.export.export(module, (ids,))
        traced.save(folder / "traced")
        torch.export.save(exported, folder / "exported.pt2")
        expected = module(ids)[0]
        copies = {"traced": traced, "exported": exported.module()}
        return [name for name, copy in copies.items() if not torch.equal(copy(ids)[0], expected)]


def other_sizes() -> list[str]:
    """What the op says of tensors whose sizes are not those that its kernels read and write."""
    ids = torch.tensor([[1, 2, 3]])
    with opened(session(Recurrent(), IDS)) as module:
        weights, state, key = module.weights, module.zeros(1), module.runnable.key
        calls: list[tuple[Tensor, Tensor, Tensor]] = [
            (weights[:-1], ids, state),
            (weights.int(), ids, state),
            (weights, ids.int(), state),
            (weights, ids[0], state),
            (weights, ids[:, :0], state),
            (weights, ids.repeat(2, 1), state),
            (weights, ids, state[:, 1:]),
            (weights, ids, state.double()),
        ]
        return [refusal(partial(run_compiled, w, [x], s, key)) for w, x, s in calls]


def refused_tensors() -> list[str]:
    """Ids, states and rows of kinds that no kernel reads; rows last."""
    ids, x = torch.tensor([[1, 2, 3]]), torch.ones(2, 17)
    nested = torch.nested.nested_tensor([x, x])
    quantized = torch.quantize_per_tensor(x, 1.0, 0, torch.quint8)
    with opened(session(Recurrent(), IDS)) as module:
        state = module.zeros(1)
        tokens = [
            ids.float(),
            ids.bool(),
            ids.to(torch.complex64),
            quantized,
            ids.to_sparse(),
            nested,
        ]
        states = [state.double(), state.to_sparse(), nested, quantized, [0.0]]
        calls = [partial(module, x) for x in tokens] + [partial(module, ids, x) for x in states]
        said = list(map(refusal, calls))
        assert all(torch.equal(module(ids.to(t))[0], module(ids)[0]) for t in INTEGERS)
    with opened(session(Pair(), (x, x))) as module:
        rows = [x.bool(), x.to(torch.complex64), quantized, x.to_sparse(), nested, x[:, 1:]]
        said += [refusal(partial(module, x, y)) for y in rows]
        assert module(x.to(torch.float8_e5m2), x.int())[0].equal(module(x, x)[0])
    return said


def batches() -> list[str]:
    """What a module says of numbers of sequences."""
    with opened(session(Recurrent(), IDS)) as module:
        assert torch.equal(module.zeros(2), torch.zeros(2, 20))
        wrong: list[Any] = [-1, 0, 2**40, 1.5, True, "x", None]
        return [refusal(partial(module.zeros, batch)) for batch in wrong]


def refusal(call: Callable[[], Any]) -> str:
    try:
        return f"no error: {call()}"
    except MmfreeError as error:
        return str(error)


def copies() -> list[str]:
    """Copies of a module, what it saves, and what it refuses."""
    ids = torch.tensor([[1, 2, 3]])
    with opened(session(Recurrent(), IDS)) as module:
        logits = module(ids)[0]
        for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            assert other.weights.data_ptr() != module.weights.data_ptr()
            assert torch.equal(other(ids)[0], logits)
        assert module.to("cpu").float().cpu() is module
        assert not module.state_dict()
        assert [name for name, _ in module.named_buffers()] == ["weights"]
        refused: list[Callable[[], Any]] = [
            lambda: module.to("meta"),
            lambda: nn.Sequential(module).type(torch.float32),
            lambda: module.to(torch.float16),
            module.half,
            module.bfloat16,
            module.double,
            lambda: module(ids.to("meta")),
            lambda: module(ids[0]),
            lambda: module(ids[:, :0]),
            lambda: module([[1]]),
            lambda: module(ids, module.zeros(2)),
        ]
        return [refusal(call) for call in refused]
