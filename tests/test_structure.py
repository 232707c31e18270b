"""What calls return: the module's own containers, on every target and from a file."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from pydantic import BaseModel, ValidationError
from test_compiler import Graph, rows
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import mmfree_compiler as mmf
from mmfree_compiler.errors import TraceError, UnsupportedError
from mmfree_compiler.models import BitLinear, MatMulFreeLM, ModelConfig
from mmfree_compiler.runtime import load
from mmfree_compiler.structure import Constant, Fields, Items, Output, Structure, check


class Pair(NamedTuple):
    first: Tensor
    second: Any


def everything(x: Tensor) -> dict[Any, Any]:
    y = x.relu()
    return {
        "z": y,
        "a": [x.neg(), (y,), [], {}],
        3: Pair(x.abs(), second=None),
        "constants": (1, 1.0, True, None, "text"),
        "input": x,
        "ordered": OrderedDict(b=x.neg(), a=y),
    }


def same(found: Any, expected: Any) -> None:
    """Equal containers of equal values; other named tuples of the same name and fields pass."""
    if isinstance(expected, Tensor):
        assert torch.equal(torch.as_tensor(found), expected)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            same(found[key], value)
    elif isinstance(expected, tuple | list):
        assert (type(found).__name__, len(found)) == (type(expected).__name__, len(expected))
        assert getattr(found, "_fields", None) == getattr(expected, "_fields", None)
        for x, y in zip(found, expected, strict=True):
            same(x, y)
    else:
        assert (type(found), found) == (type(expected), expected)


RETURNED: dict[str, Callable[[Tensor], Any]] = {
    "everything": everything,
    "a tuple of one": lambda x: (x.relu(),),
    "a list of one": lambda x: [x.relu()],
    "a tensor": lambda x: x.relu(),
    "a tuple": lambda x: (x.relu(), x.neg()),
    "a dict": lambda x: {"b": x.relu(), "a": x.neg()},
}


@pytest.mark.parametrize("name", RETURNED)
def test_containers(name: str) -> None:
    x = rows(2, 3, 16)
    model = mmf.compile(Graph(RETURNED[name]), "reference", example_inputs=(x,))
    same(model(rows(4, 16)), RETURNED[name](rows(4, 16)))
    eager = mmf.compile(Graph(RETURNED[name]), "reference", example_inputs=(x,), fallback="eager")
    same(eager(x), RETURNED[name](x))


def test_a_file_keeps_them(tmp_path: Path) -> None:
    path, x = tmp_path / "model.mmfree", rows(2, 3, 16)
    model = mmf.compile(Graph(everything), "cpu:portable", example_inputs=(x,))
    model.save(path)
    same(model(x), everything(x))
    same(load(path)(x), everything(x))
    code = (
        "import sys, numpy; from mmfree_compiler.runtime import load; "
        f"y = load({str(path)!r})(numpy.ones((2, 16), numpy.float32)); "
        "assert 'torch' not in sys.modules; print(y[3].second, y['constants'], y[3]._fields)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "None (1, 1.0, True, None, 'text') ('first', 'second')\n"


class Registered(dict[str, Any]):
    """A dict with attributes, as transformers' ModelOutput is."""


@dataclasses.dataclass
class Record:
    rows: Tensor
    other: Tensor | None = None


pytree.register_pytree_node(
    Registered,
    lambda found: (list(found.values()), list(found)),
    lambda values, keys: Registered(zip(keys, values, strict=True)),
)
torch.export.register_dataclass(Record)


@pytest.mark.parametrize("kind", [Registered, Record])
def test_what_becomes_a_dict(kind: type) -> None:
    x = rows(2, 16)
    model = mmf.compile(Graph(lambda x: kind(rows=x.relu())), "reference", example_inputs=(x,))
    assert f"{kind.__name__}  returned as a dict" in model.explain().text(notes=True)
    found = model(x)
    assert type(found) is dict
    assert torch.equal(found["rows"], x.relu())


class Unknown:
    def __init__(self, rows: Tensor) -> None:
        self.rows = rows


@pytest.mark.parametrize(
    ("returned", "error"),
    [
        (lambda x: Unknown(x.relu()), TraceError),
        (lambda x: (x.relu(), float("inf")), UnsupportedError),
        (lambda x: (x.relu(), x.shape[0]), UnsupportedError),
        (lambda x: (x.relu(), x > 0), UnsupportedError),
        (lambda x: (x.relu(), torch.float32), (TraceError, UnsupportedError)),
        (lambda x: {(1, 2): x.relu()}, UnsupportedError),
        (lambda _: (1, None), UnsupportedError),
    ],
    ids=["object", "nan", "size", "flags", "dtype", "key", "no tensor"],
)
def test_what_cannot_be_kept(returned: Any, error: Any) -> None:
    with pytest.raises(error, match=r"return|output"):
        mmf.compile(Graph(returned), "reference", example_inputs=(rows(2, 16),))


def test_a_language_model_returns_logits_and_a_state() -> None:
    """Whatever the module returns logits in."""

    class InDict(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = MatMulFreeLM(ModelConfig.of(32, 1, 20))

        def forward(self, ids: Tensor) -> dict[str, Tensor]:
            return {"logits": self.model(ids)[0]}

    ids = torch.tensor([[1, 2, 3]])
    model = mmf.compile(InDict().eval(), "reference", example_inputs=(ids,))
    logits, state = model(ids)
    assert logits.shape == (1, 3, 20)
    assert state.length == (3,)


@pytest.mark.parametrize("target", ["reference", "cpu:portable"])
def test_ids_that_make_more_than_logits(target: str) -> None:
    """Rows wider than the vocabulary cannot be logits: the module returns them as it does."""
    module = nn.Sequential(nn.Embedding(20, 16), BitLinear(16, 32)).eval()
    compiled = mmf.compile(module, target, example_inputs=(torch.tensor([[1, 2]]),))
    ids = torch.tensor([[3, 19, 0]])
    torch.testing.assert_close(compiled(ids), module(ids).detach())


@pytest.mark.parametrize(
    "wrong",
    [
        Output(1),
        Output(-1),
        Constant(None),
        Items("tuple", (Output(0), Output(0))),
        Fields("namedtuple", (("a b", Output(0)),), "Pair"),
        Fields("namedtuple", (("a", Output(0)),), "__import__('os')"),
        Fields("namedtuple", (("a", Output(0)), ("a", Constant(1))), "Pair"),
        Fields("namedtuple", ((None, Output(0)),), "class"),
    ],
)
def test_a_manifest_with_a_wrong_result_is_refused(wrong: Structure) -> None:
    with pytest.raises(ValueError, match=r"result|field names|identifiers|keyword|duplicate"):
        check(wrong, 1)


class Returns(BaseModel):
    """As Manifest has it."""

    result: Structure | None


def test_a_result_as_json() -> None:
    fields = (("a", Output(0)), (3, Items("list", (Constant(1.0), Constant(None)))))
    items = '{"kind":"list","items":[{"constant":1.0},{"constant":null}]}'
    text = f'{{"kind":"dict","fields":[["a",{{"output":0}}],[3,{items}]],"name":""}}'
    result = Fields("dict", fields)
    assert Returns(result=result).model_dump_json() == f'{{"result":{text}}}'
    assert Returns.model_validate_json(f'{{"result":{text}}}', strict=True).result == result
    deep = '{"kind":"tuple","items":[' * 300 + "]}" * 300
    for wrong in ('{"output": 0, "more": 1}', '{"output": true}', "{}", deep):
        with pytest.raises(ValidationError):
            Returns.model_validate_json(f'{{"result":{wrong}}}', strict=True)
