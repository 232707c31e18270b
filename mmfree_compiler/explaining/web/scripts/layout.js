"use strict";
// Where the boxes and lines of a graph are: ELK's layered layout of stages in loops.
const layout = (() => {
  const HEIGHT = { op: 44, other: 40 };
  const LETTER = 7.1; // the width of a letter of the bold first line, in pixels
  const OPTIONS = {
    "elk.algorithm": "layered",
    "elk.direction": "DOWN",
    "elk.edgeRouting": "ORTHOGONAL",
    "elk.hierarchyHandling": "INCLUDE_CHILDREN",
    "elk.layered.considerModelOrder.strategy": "NODES_AND_EDGES",
    "elk.layered.feedbackEdges": "true",
    "elk.layered.nodePlacement.strategy": "NETWORK_SIMPLEX",
    "elk.layered.spacing.nodeNodeBetweenLayers": "20",
    "elk.layered.spacing.edgeNodeBetweenLayers": "12",
    "elk.spacing.nodeNode": "16",
    "elk.spacing.edgeNode": "14",
    "elk.spacing.edgeEdge": "10",
  };
  const PADDING = {
    stage: "[top=30,left=12,bottom=12,right=12]",
    loop: "[top=38,left=16,bottom=16,right=16]",
  };

  /** Edges into a loop and around it, by the loop and the nodes that read the same value there. */
  function byReaders(graph, loopOf, match) {
    const byName = Map.groupBy(
      graph.edges.filter(match),
      (edge) => `${loopOf.get(edge.target)} ${edge.name}`,
    );
    const key = (edges) => [...new Set(edges.map((edge) => edge.target))].sort().join("\n");
    return Map.groupBy([...byName.values()], key);
  }

  /**
   * Nodes and edges with an entry for what a loop carries from each iteration to the next. Without
   * it, every reader of the value would have two lines of its own, one of them around the loop.
   */
  function withEntries(graph) {
    const loopOf = new Map(graph.nodes.map((node) => [node.id, node.loop]));
    const kept = new Set(graph.nodes.filter(names.stored).map((node) => node.id));
    const enters = (edge) =>
      !edge.carried &&
      !kept.has(edge.source) &&
      loopOf.get(edge.target) &&
      loopOf.get(edge.source) !== loopOf.get(edge.target);
    const entering = byReaders(graph, loopOf, enters);
    const replaced = new Set();
    const added = { nodes: [], edges: [] };
    for (const [readers, around] of byReaders(graph, loopOf, (edge) => edge.carried)) {
      const id = `layer input ${added.nodes.length}`;
      const routed = [...around, ...(entering.get(readers) ?? [])].flat();
      routed.forEach((edge) => replaced.add(edge));
      added.nodes.push({
        id,
        op: "layer input",
        kind: "carried",
        stage: null,
        loop: loopOf.get(routed[0].target),
      });
      added.edges.push(
        ...routed.map((edge) => ({ ...edge, target: id })),
        ...readers
          .split("\n")
          .map((target) => ({ source: id, target, name: routed[0].name, carried: false })),
      );
    }
    return {
      nodes: [...graph.nodes, ...added.nodes],
      edges: unique([...graph.edges.filter((edge) => !replaced.has(edge)), ...added.edges]),
    };
  }

  /** One line for all values that go from one node to another. */
  const unique = (edges) =>
    [
      ...Map.groupBy(edges, (edge) => `${edge.source}\n${edge.target}\n${edge.carried}`).values(),
    ].map(([first, ...rest]) => ({
      ...first,
      name: [...new Set([first, ...rest].map((edge) => edge.name))].join(", "),
    }));

  /** Constants and states are drawn in the stage of their first reader. */
  function placedByReader({ nodes, edges }) {
    const byId = new Map(nodes.map((node) => [node.id, node]));
    const reader = new Map(edges.toReversed().map((edge) => [edge.source, byId.get(edge.target)]));
    const home = (node) => reader.get(node.id) ?? node;
    const placed = (node) => ({ ...node, stage: home(node).stage, loop: home(node).loop });
    return { nodes: nodes.map((node) => (names.stored(node) ? placed(node) : node)), edges };
  }

  function size(node) {
    const lines = node.kind === "carried" ? [node.op] : [names.title(node), names.subtitle(node)];
    const letters = Math.max(...lines.map((line) => names.short(line).length));
    return {
      width: Math.max(96, letters * LETTER + 24),
      height: HEIGHT[names.isOp(node) ? "op" : "other"],
    };
  }

  /** The input of ELK: boxes in boxes. Constants are left out unless they are wanted. */
  function nested(graph, constants) {
    const whole = placedByReader(withEntries(graph));
    const nodes = whole.nodes.filter((node) => constants || node.kind !== "constant");
    const known = new Set(nodes.map((node) => node.id));
    const leaves = (match) =>
      nodes.filter(match).map((node) => ({ id: node.id, node, ...size(node) }));
    const stage = (box) => ({
      id: box.id,
      box,
      layoutOptions: { "elk.padding": PADDING.stage },
      children: leaves((node) => node.stage === box.id),
    });
    const stages = (loop) => graph.stages.filter((box) => box.loop === loop).map(stage);
    const loop = (box) => ({
      id: box.id,
      box,
      layoutOptions: { "elk.padding": PADDING.loop },
      children: [
        ...leaves((node) => node.stage === null && node.loop === box.id),
        ...stages(box.id),
      ],
    });
    const edges = whole.edges.filter((edge) => known.has(edge.source) && known.has(edge.target));
    return {
      id: "graph",
      layoutOptions: OPTIONS,
      children: [
        ...leaves((node) => node.stage === null && node.loop === null),
        ...stages(null),
        ...graph.loops.map(loop),
      ],
      edges: edges.map((edge, i) => ({
        id: `edge ${i}`,
        edge,
        sources: [edge.source],
        targets: [edge.target],
        // Of the edges of a loop, the carried one is drawn upwards.
        layoutOptions: { "elk.layered.priority.direction": edge.carried ? "0" : "10" },
      })),
    };
  }

  /** Every box with its place on the page, outer ones first, and every line with its points. */
  function placed(result) {
    const boxes = [];
    const origin = new Map();
    (function walk(box, x, y) {
      origin.set(box.id, { x, y });
      for (const child of box.children ?? []) {
        boxes.push({ ...child, x: x + child.x, y: y + child.y });
        walk(child, x + child.x, y + child.y);
      }
    })(result, 0, 0);
    const lines = result.edges.map((line) => {
      const { x, y } = origin.get(line.container ?? result.id);
      const points = line.sections.flatMap((part) => [
        part.startPoint,
        ...(part.bendPoints ?? []),
        part.endPoint,
      ]);
      return { edge: line.edge, points: points.map((point) => [x + point.x, y + point.y]) };
    });
    return { width: result.width, height: result.height, boxes, lines };
  }

  /** A promise of the boxes and lines of `graph`. */
  const of = async (graph, constants) => placed(await new ELK().layout(nested(graph, constants)));

  return { of };
})();
