"""The times of nodes and stages: the least that ceilings allow, and those of a profile."""

from __future__ import annotations

from collections.abc import Mapping

from mmfree_compiler.backends.explained import Group, Profile
from mmfree_compiler.explaining.costs import roofline_us, together
from mmfree_compiler.explaining.drawn import Cost, GraphNode, ProgramGraph, StageBox, TimedPart
from mmfree_compiler.explaining.schema import Ceilings

_NO_TIME = "the target has no time for it alone"

Groups = Mapping[Group, float]  # ids of nodes -> microseconds


def timed(
    graph: ProgramGraph, profile: Profile | None, ceilings: Ceilings | None, why: str
) -> ProgramGraph:
    """The graph with times; `why` there are none without a profile."""
    groups = {g: 1e6 * seconds for g, seconds in profile.groups.items()} if profile else {}
    nodes = {node.id: node for node in graph.nodes}
    stages = [_stage(stage, nodes, groups, ceilings, why) for stage in graph.stages]
    own = {group[0]: us for group, us in groups.items() if len(group) == 1}
    found = [
        node.model_copy(
            update={"cost": _cost(node.cost, ceilings, own.get(node.id), why or _NO_TIME)}
        )
        for node in graph.nodes
    ]
    return graph.model_copy(update={"nodes": tuple(found), "stages": tuple(stages)})


def step_roofline_us(graph: ProgramGraph, ceilings: Ceilings | None) -> float | None:
    """The least time of a step in which all stages may run at once."""
    return roofline_us(together(stage.cost for stage in graph.stages), ceilings)


def _stage(
    stage: StageBox,
    nodes: Mapping[str, GraphNode],
    groups: Groups,
    ceilings: Ceilings | None,
    why: str,
) -> StageBox:
    inside = [node.id for node in nodes.values() if node.stage == stage.id]
    own = {group: us for group, us in groups.items() if group[0] in inside}
    measured = sum(own.values()) if own else None
    in_order = sorted(own, key=lambda group: inside.index(group[0]))
    parts = [_part(group, own[group], nodes, ceilings) for group in in_order]
    cost = _cost(stage.cost, ceilings, measured, why or _NO_TIME)
    return stage.model_copy(update={"cost": cost, "parts": tuple(parts) if len(parts) > 1 else ()})


def _part(
    group: Group, us: float, nodes: Mapping[str, GraphNode], ceilings: Ceilings | None
) -> TimedPart:
    inside = [nodes[name] for name in group]
    return TimedPart(
        title=", ".join(dict.fromkeys(node.op for node in inside)),
        nodes=group,
        cost=_cost(together(node.cost for node in inside), ceilings, us, ""),
    )


def _cost(cost: Cost, ceilings: Ceilings | None, measured: float | None, why: str) -> Cost:
    reason = "" if measured is not None else why
    times = {
        "roofline_us": roofline_us(cost, ceilings),
        "measured_us": measured,
        "reason": reason,
    }
    return cost.model_copy(update=times)
