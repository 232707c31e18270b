"use strict";
// What nodes, stages and loops are called on the page.
const names = (() => {
  const LONGEST = 26; // letters of a line in a box

  const short = (text) => (text.length > LONGEST ? `${text.slice(0, LONGEST - 1)}…` : text);

  const isOp = (node) => ["row", "tile", "scan"].includes(node.kind);

  const stored = (node) => ["constant", "state"].includes(node.kind);

  /** The weight of a product of a ternary matrix, undefined for other nodes. */
  const ternary = (node) =>
    isOp(node) ? node.constants.find((constant) => constant.role === "ternary") : undefined;

  /** The class of a node for colours: a product of a ternary matrix is a tile of its own sort. */
  const sort = (node) => (ternary(node) ? "product" : node.kind);

  /**
   * "attn_i_proj" for the constant "module_model_layers_0_attn_i_proj_weight_codes@packed", and
   * "gate_proj[64:128]" for the second 64 rows of a weight.
   */
  function weight(constant) {
    const [, whole, first] = /^(.*?)(?:_weight)?(?:_codes(?:_(\d+))?)?(?:@.*)?$/s.exec(
      constant.name,
    );
    const own = whole
      .replace(/^.*_\d+_(?=\D)/s, "")
      .replace(/^module_/, "")
      .replace(/^(?=\d+$)/, "module ");
    return first === undefined ? own : `${own}[${first}:${Number(first) + constant.shape[0]}]`;
  }

  /** The first line of a box. */
  const title = (node) => (stored(node) ? node.kind : node.op);

  /** The second line of a box: the weight of a product, else the rows that the op makes. */
  function subtitle(node) {
    if (stored(node)) return node.op;
    if (ternary(node)) return weight(ternary(node));
    const [made] = node.outputs.length ? node.outputs : node.inputs;
    return made ? `${made.dtype}[${made.width}]` : "";
  }

  /** A node in a sentence or a table. */
  const node = (named) => (ternary(named) ? `${named.op} ${subtitle(named)}` : named.op);

  /** A part of a stage that has a time: which of several products it is, where it is one node. */
  function part(timed, graph) {
    const [first, ...others] = timed.nodes;
    const alone = others.length === 0 && graph.nodes.find((each) => each.id === first);
    return alone ? node(alone) : timed.title;
  }

  const loop = (box) => `${wording.counted(box.count, "time")}, once per layer`;

  /** "Stage 2", and with its ops: "Stage 2: norm_quant, ternary_linear, swiglu". */
  const stage = (box) => box.id.replace(/^./, (letter) => letter.toUpperCase());
  const wholeStage = (box) => `${stage(box)}: ${box.title}`;

  return {
    isOp,
    loop,
    node,
    part,
    short,
    sort,
    stage,
    stored,
    subtitle,
    ternary,
    title,
    wholeStage,
  };
})();
