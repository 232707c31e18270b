"use strict";
// The parts of the page that are tables and plots.
const sections = (() => {
  const { html } = elements;

  const total = (cost) => cost.constant_bytes + cost.state_bytes + cost.value_bytes;
  const known = (time) => (time === null ? "" : wording.microseconds(time));

  function stageTable(graph) {
    return tables.table("Stages of a decode step, all iterations together", [
      { title: "stage", value: (box) => names.wholeStage(box) },
      { title: "runs", number: true, value: (box) => `× ${box.times}` },
      { title: "constants", number: true, value: (box) => wording.bytes(box.cost.constant_bytes) },
      { title: "state", number: true, value: (box) => wording.bytes(box.cost.state_bytes) },
      { title: "rows", number: true, value: (box) => wording.bytes(box.cost.value_bytes) },
      { title: "int8 additions", number: true, value: (box) => wording.count(box.cost.integer_operations) },
      { title: "fp32 operations", number: true, value: (box) => wording.count(box.cost.float_operations) },
      { title: "roofline", number: true, value: (box) => known(box.cost.roofline_us) },
      { title: "measured", number: true, value: (box) => known(box.cost.measured_us) },
    ], graph.stages);
  }

  /** Times where they were measured, else bytes: what decode is bounded by. */
  function stagePlot(graph) {
        const measured = graph.stages.filter((box) => box.cost.measured_us !== null);
    if (measured.length) {
      return plots.bars("Measured time of each stage, and the least that the machine allows (line)",
        measured.map((box) => ({ label: names.wholeStage(box), value: box.cost.measured_us, mark: box.cost.roofline_us, sort: "row" })),
        wording.microseconds);
    }
    return plots.bars("Bytes that each stage reads and writes",
      graph.stages.map((box) => ({ label: names.wholeStage(box), value: total(box.cost), sort: "row" })), wording.bytes);
  }

  function opPlot(graph) {
    const byName = Map.groupBy(graph.nodes.filter(names.isOp), names.node);
    const rows = [...byName].map(([label, nodes]) => ({
      label, sort: names.sort(nodes[0]), value: nodes.reduce((sum, node) => sum + total(node.cost), 0) }));
    return plots.bars("Bytes that each op reads and writes",
      rows.sort((a, b) => b.value - a.value).slice(0, 24), wording.bytes);
  }

  function cost(part) {
    const { ceilings, program: graph } = part;
    if (!graph) return html("p", {}, "Not known.");
    const rate = (number, unit) => (number ? `${wording.significant(number / 1e9)} ${unit}` : "");
    return [
      ceilings && tables.facts([
        ["ceilings", ceilings.how],
        ["memory", rate(ceilings.bytes_per_second, "GB/s")],
        ["int8", rate(ceilings.integer_operations_per_second, "billion operations per second")],
        ["fp32", rate(ceilings.float_operations_per_second, "billion operations per second")],
      ]),
      html("div", { class: "columns" }, stagePlot(graph), opPlot(graph)),
      stageTable(graph),
    ];
  }

  function weights(part) {
    const rows = [
      { label: "ternary weights", value: part.weight_bytes, sort: "product" },
      { label: "embedding tables", value: part.embedding_bytes, sort: "tile" },
      { label: "all else", value: part.other_bytes, sort: "row" },
    ];
    return plots.bars("What the model keeps in memory", rows, wording.bytes);
  }

  const memory = (part) => [
    html("div", { class: "columns" }, weights(part)),
    Object.keys(part.memory).length ? tables.free("Memory plan", "part", part.memory) : null,
    Object.keys(part.kernels).length ? tables.free("Kernels", "kernel", part.kernels) : null,
  ];

  const coverage = (explanation) => tables.table("Ops of the final graph, and the targets that can lower them", [
    { title: "op", value: (row) => html("code", {}, row.op) },
    { title: "calls", number: true, value: (row) => wording.count(row.count) },
    ...explanation.kinds.map((kind) => (
      { title: kind, value: (row) => (row.targets.includes(kind) ? "yes" : html("strong", {}, "no")) })),
  ], explanation.coverage);

  /** The verdict of the audit, and a table of what is left. */
  function audit(explanation) {
    const found = explanation.audit;
    if (!found) return html("p", {}, "The model was not searched for products of float matrices.");
    const examined = `${wording.counted(found.examined, "call")} of the ${found.where} examined.`;
    if (!found.products.length) {
      return html("p", { class: "verdict good" }, html("b", {}, "No product of float matrices is left. "), examined);
    }
    const left = `${wording.counted(found.products.length, "product")} of float matrices left. `;
    return [
      html("p", { class: "verdict bad" }, html("b", {}, left), examined),
      tables.table("Products of float matrices", [
        { title: "op", value: (row) => html("code", {}, row.op) },
        { title: "node", value: (row) => html("code", {}, row.node) },
        { title: "line of the model", value: (row) => row.source },
        { title: "why", value: (row) => row.why },
      ], found.products),
    ];
  }

  const missing = (lines) => lines.length > 0
    && html("ul", { class: "missing" }, lines.map((line) => html("li", {}, line)));

  return { audit, cost, coverage, memory, missing };
})();
