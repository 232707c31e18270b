"""What an explanation says of a model that runs in torch, partly or as a whole."""

from __future__ import annotations

import pytest
from left_over import LeftOver, rows
from torch import nn

import mmfree_compiler as mmf
from mmfree_compiler.fallback import EagerModel


def eager(module: nn.Module) -> EagerModel:
    inputs = (rows(2, 3),)
    return mmf.compile(module.eval(), "reference", example_inputs=inputs, fallback="eager")


def test_it_says_that_nothing_is_measured() -> None:
    model = eager(LeftOver())
    assert str(model.explain()).startswith("LeftOver, partly in torch\n")
    assert model.explain().missing == ()
    assert "are not measured" in str(model.explain(measure=True))


def test_passes_on_parts_are_not_called_passes_on_the_graph() -> None:
    stages = {step.name: step.stage for step in eager(LeftOver()).explain().passes}
    assert stages["lower_pointwise"] == "graph"
    assert stages["group_stages"] == stages["roll_layers"] == stages["fallback"] == "parts"


def test_names_do_nothing_to_a_terminal() -> None:
    kind = type("Red\x1b[31m", (nn.Linear,), {})
    with pytest.warns(UserWarning, match=r"Red\\x1b\[31m runs in torch as a whole"):
        model = eager(kind(32, 8).bfloat16())
    assert str(model.explain()).startswith("Red\\x1b[31m, in torch\n")
