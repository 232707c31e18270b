"use strict";
// What is known of a chosen box of the graph.
const details = (() => {
  const { html, prose } = elements;
  const KINDS = {
    row: "row op: it needs whole rows",
    tile: "tile op: it makes each column alone",
    scan: "scan: a recurrence over the tokens of a sequence",
    input: "input",
    output: "output",
    constant: "constant",
    state: "state, kept for each sequence",
  };

  const code = (text) => html("code", {}, text);

  const shape = (constant) => `${constant.dtype}[${constant.shape.join(" × ")}]`;

  /** The end of a path, which is enough to know the file by. */
  const ending = (path) => path.split("/").slice(-3).join("/");

  /** "package/models/lm.py:63" and the code of that line; the whole path is its tooltip. */
  function source(text) {
    const [, place, line] = /^(.*?:\d+): (.*)$/s.exec(text) ?? [null, text, ""];
    return (
      text && [
        html("h4", {}, "Line of the model"),
        html("p", { class: "quiet", title: place }, ending(place)),
        line && html("pre", {}, line),
      ]
    );
  }

  function cost(known, how) {
    const operations = [
      [known.integer_operations, "additions of int8 codes"],
      [known.float_operations, "operations in fp32"],
    ].filter(([number]) => number);
    const size = (number, what) => (number ? `${wording.bytes(number)} of ${what}` : null);
    const read = [
      size(known.constant_bytes, "constants"),
      size(known.state_bytes, "state"),
      size(known.value_bytes, "rows"),
    ].filter(Boolean);
    const time = (number) => (number === null ? "" : wording.microseconds(number));
    const unknown = known.measured_us === null ? known.reason : "";
    return [
      html("h4", {}, "Cost for one token"),
      tables.facts([
        ["reads and writes", read.join(", ")],
        [
          "computes",
          operations.map(([number, what]) => `${wording.count(number)} ${what}`).join(", "),
        ],
        ["at least", time(known.roofline_us) && `${time(known.roofline_us)}, the roofline`],
        [how || "measured", time(known.measured_us) || unknown],
      ]),
    ];
  }

  /** The time of the smallest part that a node is in, where it has none of its own. */
  function ofItsPart(node, { how, program: graph }) {
    const box = graph.stages.find((each) => each.id === node.stage);
    const part = box?.parts.find((each) => each.nodes.includes(node.id));
    const whole = part ?? box;
    const what = part ? `with ${names.part(part, graph)}` : `all of ${box?.id}`;
    return (
      node.cost.measured_us === null &&
      whole?.cost.measured_us != null &&
      tables.facts([[`${how}, ${what}`, wording.microseconds(whole.cost.measured_us)]])
    );
  }

  const listed = (title, rows, item) =>
    rows.length > 0 && [
      html("h4", {}, title),
      html(
        "ul",
        { class: "plain" },
        rows.map((row) => html("li", {}, item(row))),
      ),
    ];

  const operand = (row) => [
    code(row.name),
    " ",
    html("span", { class: "quiet" }, `${row.dtype}[${row.width}]`),
  ];

  function constant(row) {
    const facts = [
      `${row.role}, ${shape(row)}`,
      `laid out as ${row.layout}`,
      wording.bytes(row.nbytes),
    ];
    if (row.parts > 1) facts.splice(1, 0, `one for each of ${row.parts} iterations`);
    return [code(row.name), html("div", { class: "quiet" }, facts.join("; "))];
  }

  const notes = (rows) =>
    rows.length > 0 && [
      html("h4", {}, "Notes of passes"),
      html(
        "ul",
        {},
        rows.map((note) => html("li", {}, prose(note.text))),
      ),
    ];

  /** Buttons that lead along the edges. */
  function neighbours(id, graph, choose) {
    const byId = new Map(graph.nodes.map((node) => [node.id, node]));
    const links = (title, ids) => {
      const found = [...new Set(ids)]
        .map((each) => byId.get(each))
        .filter((node) => node && node.kind !== "constant");
      return [
        title,
        found.length > 0 &&
          html(
            "span",
            { class: "links" },
            found.map((node) =>
              html("button", { type: "button", click: () => choose(node.id) }, names.node(node)),
            ),
          ),
      ];
    };
    const from = graph.edges.filter((edge) => edge.target === id).map((edge) => edge.source);
    const to = graph.edges.filter((edge) => edge.source === id).map((edge) => edge.target);
    return tables.facts(
      [links("reads from", from), links("read by", to)].filter(([, links]) => links),
    );
  }

  function place(node, graph) {
    const stage = graph.stages.find((box) => box.id === node.stage);
    const times = node.times > 1 ? `, ${wording.counted(node.times, "time")} per token` : "";
    return stage ? `${stage.id}${times}` : times.slice(2);
  }

  function ofNode(node, target, choose) {
    const graph = target.program;
    const attributes = Object.entries(node.attributes).map(([name, value]) => `${name} = ${value}`);
    return [
      html("h3", {}, names.title(node), " ", html("small", {}, names.subtitle(node))),
      node.meaning && html("p", {}, prose(node.meaning)),
      tables.facts([
        ["kind", KINDS[node.kind]],
        ["runs in", names.isOp(node) ? place(node, graph) : ""],
        ["attributes", attributes.length ? code(attributes.join(", ")) : ""],
        ["state", node.state ? code(node.state) : ""],
      ]),
      neighbours(node.id, graph, choose),
      names.isOp(node) && cost(node.cost, target.how),
      names.isOp(node) && ofItsPart(node, target),
      source(node.source),
      listed("Reads", node.inputs, operand),
      listed("Makes", node.outputs, operand),
      listed("Constants", node.constants, constant),
      notes(node.notes),
    ];
  }

  function ofStage(box, target, choose) {
    const graph = target.program;
    const inside = graph.nodes.filter((node) => node.stage === box.id && names.isOp(node));
    return [
      html("h3", {}, names.wholeStage(box)),
      html(
        "p",
        {},
        "A stage is work between two barriers: first ops that need whole",
        " rows, then ops that make columns independently, on a few columns at a time.",
      ),
      tables.facts([["runs", `${wording.counted(box.times, "time")} per token`]]),
      cost(box.cost, target.how),
      html("h4", {}, "Its ops"),
      html(
        "ol",
        {},
        inside.map((node) =>
          html(
            "li",
            {},
            html("button", { type: "button", click: () => choose(node.id) }, names.node(node)),
          ),
        ),
      ),
    ];
  }

  const ofLoop = (box) => [
    html("h3", {}, `Loop, ${names.loop(box)}`),
    html(
      "p",
      {},
      "Layers that differ in their constants and states only are one loop:",
      " iteration l reads part l of each.",
    ),
    tables.facts([
      ["iterations", wording.count(box.count)],
      ["stages", box.stages.join(", ")],
    ]),
  ];

  const ofEntry = () => [
    html("h3", {}, "layer input"),
    html(
      "p",
      {},
      "The rows that a layer starts from: in the first iteration what comes",
      " into the loop, later what the layer before has made.",
    ),
  ];

  /** The elements for the box with this id, in the Program of `target`. */
  function of(id, target, choose) {
    const { program: graph } = target;
    const node = graph.nodes.find((each) => each.id === id);
    if (node) return ofNode(node, target, choose);
    const stage = graph.stages.find((box) => box.id === id);
    if (stage) return ofStage(stage, target, choose);
    const loop = graph.loops.find((box) => box.id === id);
    return loop ? ofLoop(loop) : ofEntry();
  }

  return { of };
})();
