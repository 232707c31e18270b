"use strict";
// The parts of the page that are tables and plots.
const sections = (() => {
  const { html } = elements;

  const MOST = 24; // bars of a plot

  const total = (cost) => cost.constant_bytes + cost.state_bytes + cost.value_bytes;
  const known = (time) => (time === null ? "" : wording.microseconds(time));

  function stageTable({ how, program: graph }) {
    const name = (box) => (box.id ? names.wholeStage(box) : `- ${names.part(box, graph)}`);
    return tables.table(
      "Stages, all iterations together",
      [
        { title: "stage", value: name },
        { title: "runs", number: true, value: (box) => (box.times ? `× ${box.times}` : "") },
        {
          title: "constants",
          number: true,
          value: (box) => wording.bytes(box.cost.constant_bytes),
        },
        { title: "state", number: true, value: (box) => wording.bytes(box.cost.state_bytes) },
        { title: "rows", number: true, value: (box) => wording.bytes(box.cost.value_bytes) },
        {
          title: "int8 additions",
          number: true,
          value: (box) => wording.count(box.cost.integer_operations),
        },
        {
          title: "fp32 operations",
          number: true,
          value: (box) => wording.count(box.cost.float_operations),
        },
        { title: "roofline", number: true, value: (box) => known(box.cost.roofline_us) },
        { title: how, number: true, value: (box) => known(box.cost.measured_us) },
      ],
      graph.stages.flatMap((box) => [box, ...box.parts]),
    );
  }

  /** Times where they are known, else bytes: what decode is bounded by. */
  function stagePlot({ how, program: graph }) {
    const label = (box) => names.stage(box) + (box.times > 1 ? ` × ${box.times}` : "");
    const measured = graph.stages.filter((box) => box.cost.measured_us !== null);
    const time = ({ cost, ...box }) => ({
      label: label(box),
      value: cost.measured_us,
      mark: cost.roofline_us,
      sort: "row",
    });
    const size = (box) => ({ label: label(box), value: total(box.cost), sort: "row" });
    return measured.length
      ? plots.bars(
          `Time of each stage, ${how}; the line is the least that the machine allows`,
          measured.map(time),
          wording.microseconds,
        )
      : plots.bars("Bytes that each stage reads and writes", graph.stages.map(size), wording.bytes);
  }

  function opPlot(graph) {
    const byName = Map.groupBy(graph.nodes.filter(names.isOp), names.node);
    const rows = [...byName].map(([label, nodes]) => ({
      label,
      sort: names.sort(nodes[0]),
      value: nodes.reduce((sum, node) => sum + total(node.cost), 0),
    }));
    return plots.bars(
      "Bytes that each op reads and writes",
      rows.sort((a, b) => b.value - a.value).slice(0, MOST),
      wording.bytes,
    );
  }

  /** "47.3 µs measured with 1 thread, at least 25.1 µs": a step beside its roofline. */
  function step(part) {
    const threads = part.threads && ` with ${wording.counted(part.threads, "thread")}`;
    const said = [
      part.decode_us !== null &&
        `${wording.microseconds(part.decode_us)} ${part.how}${threads || ""}`,
      part.roofline_us !== null &&
        `at least ${wording.microseconds(part.roofline_us)} by the ceilings of the machine`,
    ];
    return said.filter(Boolean).join(", ");
  }

  /** No program is faster than a ceiling: where one seems to be, a measurement was disturbed. */
  function contradiction({ overlapping, program: graph }) {
    if (overlapping) return false; // a stage has the time that is its own alone
    const faster = graph.stages.filter(
      ({ cost }) =>
        cost.measured_us !== null &&
        cost.roofline_us !== null &&
        cost.measured_us < cost.roofline_us,
    );
    return (
      faster.length > 0 &&
      html(
        "p",
        { class: "verdict bad" },
        html("b", {}, "These times contradict each other. "),
        `${faster.map(names.stage).join(", ")}: measured as faster than the ceilings allow. `,
        "Do not compare them with the roofline; measure again on an idle machine.",
      )
    );
  }

  function cost(part) {
    const { ceilings, program: graph } = part;
    const rate = (number, unit) => (number ? `${wording.significant(number / 1e9)} ${unit}` : "");
    return [
      contradiction(part),
      tables.facts([
        ["step for one token", step(part)],
        ...Object.entries(part.others_us).map(([what, us]) => [what, wording.microseconds(us)]),
      ]),
      ceilings &&
        tables.facts([
          ["ceilings of the machine", ceilings.how],
          ["memory", rate(ceilings.bytes_per_second, "GB/s")],
          ["int8", rate(ceilings.integer_operations_per_second, "billion operations per second")],
          ["fp32", rate(ceilings.float_operations_per_second, "billion operations per second")],
        ]),
      html("div", { class: "columns" }, stagePlot(part), opPlot(graph)),
      stageTable(part),
    ];
  }

  function kept(part) {
    const rows = [
      { label: "ternary weights", value: part.weight_bytes, sort: "product" },
      { label: "embedding tables", value: part.embedding_bytes, sort: "tile" },
      { label: "all else", value: part.other_bytes, sort: "row" },
    ];
    return plots.bars("What the model keeps in memory", rows, wording.bytes);
  }

  /** The ternary weights, those of all layers together. */
  function weights(graph) {
    const products = graph.nodes.filter(names.ternary);
    const rows = products.map((node) => ({
      label: names.subtitle(node),
      value: names.ternary(node).nbytes,
      sort: "product",
    }));
    const byLabel = Map.groupBy(rows, (row) => row.label);
    const merged = [...byLabel.values()].map((same) => ({
      ...same[0],
      value: same.reduce((sum, row) => sum + row.value, 0),
    }));
    return (
      merged.length > 0 &&
      plots.bars(
        "Ternary weights, all layers together",
        merged.sort((a, b) => b.value - a.value).slice(0, MOST),
        wording.bytes,
      )
    );
  }

  const memory = (part) => [
    html("div", { class: "columns" }, kept(part), part.program && weights(part.program)),
    Object.keys(part.memory).length ? tables.free("Memory plan", "part", part.memory) : null,
    Object.keys(part.kernels).length ? tables.free("Kernels", "kernel", part.kernels) : null,
  ];

  const coverage = (explanation) =>
    tables.table(
      "Ops of the final graph, and the targets that can lower them",
      [
        { title: "op", value: (row) => html("code", {}, row.op) },
        { title: "calls", number: true, value: (row) => wording.count(row.count) },
        ...explanation.kinds.map((kind) => ({
          title: kind,
          value: (row) => (row.targets.includes(kind) ? "yes" : html("strong", {}, "no")),
        })),
      ],
      explanation.coverage,
    );

  /** The verdict of the audit, and a table of what is left. */
  function audit(explanation) {
    const found = explanation.audit;
    if (!found) return null;
    const examined = `${wording.counted(found.examined, "call")} of the ${found.where} examined.`;
    if (!found.products.length) {
      return html(
        "p",
        { class: "verdict good" },
        html("b", {}, "No product of float matrices is left. "),
        examined,
      );
    }
    const left = `${wording.counted(found.products.length, "product")} of float matrices left. `;
    return [
      html("p", { class: "verdict bad" }, html("b", {}, left), examined),
      tables.table(
        "Products of float matrices",
        [
          { title: "op", value: (row) => html("code", {}, row.op) },
          { title: "node", value: (row) => html("code", {}, row.node) },
          { title: "module", value: (row) => row.module },
          { title: "line of the model", value: (row) => row.source },
          { title: "why", value: (row) => row.why },
        ],
        found.products,
      ),
    ];
  }

  const missing = (lines) =>
    lines.length > 0 &&
    html(
      "ul",
      { class: "missing" },
      lines.map((line) => html("li", {}, line)),
    );

  return { audit, cost, coverage, memory, missing };
})();
