"""Decoding as a mock of the driver sees it: steps are launched ahead, and waited for one by one."""

from __future__ import annotations

from mock_driver import Ran, run

from mmfree_compiler.backends.cuda.lanes import AHEAD, RING

DECODE = """
from mmfree_compiler.backends.cuda import facts as f
from mmfree_compiler.backends.cuda.run.decoding import CudaDecoding
from mmfree_compiler.backends.cuda.run.gpu import Gpu
from mmfree_compiler.backends.cuda.run.lane_memory import LanePool
from mmfree_compiler.backends.cuda.run.plans import Places
from mmfree_compiler.backends.cuda.run.states import CudaStates, StateArena
from mmfree_compiler.artifact import StateEntry
from mmfree_compiler.backends.decoding import Choices
from mmfree_compiler.backends.interface import Batch

def kernel(name):
    sizes = {"offset": 0, "size": len(CODE), "warps": 1, "shared": 0}
    return f.Kernel(symbol=name, dependent=False, parameters=["*i32"], **sizes)

def launch(name, space):
    pointer = f.Argument(space=space)
    return f.Launch(kernel=name, columns=2, over="tokens", per=1, arguments=[pointer])

def decode(count, steps=9):
    states, index = CudaStates.zero(arena, count), np.arange(count)
    numbers = [np.ones(count, kind) for kind in "f f i i u8".split()]
    settings = Choices(*numbers, seen=np.zeros((count, 40), bool))
    batch = Batch((index,), index.astype("i"), index, index)
    return CudaDecoding(pool, batch, settings, states, steps)

CODE = np.frombuffer(b"model 8 8 8\\nchoose 8 8 8", np.uint8)
device = devices.open_device()
gpu = Gpu(device)
names = {"model": kernel("model"), "choose": kernel("choose")}
gpu.load(CODE, names)
step = f.Repeat(count=2, launches=[launch("model", "states")])
plan = f.Plan(tokens=8, together=False, steps=[step])
sampling = [launch("choose", "drawn")]
sizes = {"chunk": 8, "scratch": 0, "output_start": 0}
known = f.Facts(arch="sm_90", kernels=names, plans=[plan], sampling=sampling, **sizes)
arena = StateArena(gpu, [StateEntry(name="h", shape=(4,))])
pool = LanePool(arena, known, Places({}, {"input": [0, 0], "output": [0, 0]}), 40)
"""
STEPS = ("cuGraphLaunch", "cuEventRecord", "cuEventSynchronize", "cuStreamSynchronize")


def _events(ran: Ran) -> list[tuple[str, int]]:
    """Launches of steps, and which mark is set or waited for, counted from the first."""
    marks: dict[str, int] = {}
    found = []
    for line in ran.of(*STEPS):
        name, *rest = line.split()
        mark = marks.setdefault(rest[0], len(marks)) if name.startswith("cuEvent") else 0
        found.append((name.removeprefix("cu"), mark))
    return found


def test_steps_are_launched_ahead_and_waited_for_one_by_one() -> None:
    ran = run(DECODE + f"decoding = decode(2)\nfor _ in range({RING + 1}): next(decoding)")
    first = [pair for k in range(AHEAD + 1) for pair in (("GraphLaunch", 0), ("EventRecord", k))]
    assert _events(ran)[: len(first) + 1] == [*first, ("EventSynchronize", 0)]
    for k in range(1, RING + 1):
        at = len(first) + 1 + 3 * (k - 1)
        mark = (k + AHEAD) % RING
        expected = [("GraphLaunch", 0), ("EventRecord", mark), ("EventSynchronize", k % RING)]
        assert _events(ran)[at : at + 3] == expected


def test_a_step_is_one_graph_for_a_power_of_two_of_sequences() -> None:
    ran = run(DECODE + "decoding = decode(3, steps=1)\nnext(decoding)\nprint(next(decoding, None))")
    launches = [line.split(" block")[0] for line in ran.of("run")]
    assert launches == [*["run model grid 2,4,1"] * 2, "run choose grid 2,4,1"]
    assert ran.printed == ["None"]


def test_what_was_recorded_is_used_again_until_states_move() -> None:
    script = """
for count in (2, 2, 1, 2):
    decoding = decode(count)
    next(decoding)
    decoding.close()
    del decoding
print(arena.moves)
other, decoding = CudaStates.zero(arena, 30), decode(2)
print(arena.moves > 0, next(decoding).ids.shape)
del decoding
device.close()
"""
    ran = run(DECODE + script)
    assert ran.printed == ["0", "True (2,)"]
    assert len(ran.of("cuGraphInstantiateWithFlags")) == 3
    assert set(ran.left.values()) == {0}


def test_a_failing_launch_closes_it() -> None:
    script = """
decoding = decode(1)
next(decoding)
os.environ["MOCK_FAIL"] = "cuGraphLaunch:1:719"
print(said(next, decoding))
print(next(decoding, None))
device.close()
"""
    ran = run(DECODE + script)
    assert ran.printed[0].startswith("DeviceError: the GPU: failed in a kernel or in its hardware")
    assert ran.printed[1] == "None"
