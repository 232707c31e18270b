"use strict";
// The passes in their order, and what the chosen one did.
const passes = (() => {
  const { html, prose } = elements;
  const STAGES = {
    graph: ["Graph", "passes over the traced graph, which still runs in torch"],
    program: ["Program", "stages and loops over rows, the same for every target"],
    model: ["Model", "what was read"],
    parts: ["Parts", "what is compiled of the graph, and what runs in torch"],
  };

  const snapshot = (explanation, index) => (index === null ? null : explanation.snapshots[index]);

  const bothSides = (step, explanation) =>
    [step.before, step.after].map((index) => snapshot(explanation, index));

  /** Whether a pass is known to have left everything as it was. */
  function unchanged(step, explanation) {
    const [before, after] = bothSides(step, explanation);
    return Boolean(before && after) && before.text === after.text && before.lines === after.lines;
  }

  /** What a pass did to the number of calls of ops. */
  function effect(step, explanation) {
    const [before, after] = bothSides(step, explanation);
    if (!before || !after)
      return step.notes.length ? wording.counted(step.notes.length, "note") : "";
    if (unchanged(step, explanation)) return "no change";
    return after.nodes === before.nodes
      ? "rewritten"
      : `${wording.change(after.nodes - before.nodes)} ops`;
  }

  /** Runs of passes of the same stage: [stage, steps]. */
  function groups(steps) {
    const found = [];
    for (const step of steps) {
      if (found.at(-1)?.[0] !== step.stage) found.push([step.stage, []]);
      found.at(-1)[1].push(step);
    }
    return found;
  }

  const operations = (before, after) => {
    const ops = [...new Set([...Object.keys(before.ops), ...Object.keys(after.ops)])];
    const rows = ops.map((op) => ({ op, before: before.ops[op] ?? 0, after: after.ops[op] ?? 0 }));
    const changed = rows.filter((row) => row.before !== row.after);
    if (!changed.length) return html("p", {}, "It calls the same ops as before.");
    const equal = wording.counted(rows.length - changed.length, "other op");
    return tables.table(
      `Calls of ops that changed; ${equal} did not`,
      [
        { title: "op", value: (row) => html("code", {}, row.op) },
        { title: "before", number: true, value: (row) => wording.count(row.before) },
        { title: "after", number: true, value: (row) => wording.count(row.after) },
        { title: "change", number: true, value: (row) => wording.change(row.after - row.before) },
      ],
      changed.sort((a, b) => Math.abs(b.after - b.before) - Math.abs(a.after - a.before)),
    );
  };

  /** Notes with the same text are one row that names its nodes. */
  function notes(step) {
    if (!step.notes.length) return null;
    const byText = Map.groupBy(step.notes, (note) => note.text);
    return tables.table(
      "What it did",
      [
        { title: "note", value: ([text]) => prose(text) },
        { title: "times", number: true, value: ([, all]) => wording.count(all.length) },
        { title: "nodes", value: ([, all]) => nodes(all.map((note) => note.node)) },
      ],
      [...byText],
    );
  }

  function nodes(all) {
    const few = all.slice(0, 3).join(", ");
    if (all.length <= 3) return html("code", {}, few);
    return html(
      "details",
      {},
      html("summary", {}, html("code", {}, few), ` and ${wording.count(all.length - 3)} more`),
      html("code", {}, all.slice(3).join(", ")),
    );
  }

  const accuracy = ({ largest, reason }) =>
    largest === null
      ? `not compared${reason ? `: ${reason}` : ""}`
      : Number(largest) === 0
        ? "none"
        : `${wording.relative(largest)} of the largest value of a row`;

  function texts(step, explanation) {
    const [before, after] = bothSides(step, explanation);
    if (!before || !after) return html("p", {}, "The texts before and after were not kept.");
    const cut = [
      ["before", before],
      ["after", after],
    ]
      .filter(([, each]) => each.lines > each.text.split("\n").length)
      .map(([name, each]) => `${wording.count(each.lines)} lines ${name}`)
      .join(", ");
    return [
      html("h4", {}, "Before and after"),
      cut && html("p", { class: "quiet" }, `Repetitions are left out: the whole text has ${cut}.`),
      unchanged(step, explanation)
        ? html("p", {}, "The text is the same.")
        : differences.sideBySide(before.text, after.text),
    ];
  }

  function panel(step, explanation) {
    const [before, after] = bothSides(step, explanation);
    const both = before && after;
    return [
      html("h3", {}, step.name),
      html("p", { class: "lead" }, prose(step.purpose)),
      tables.facts([
        ["works on", (STAGES[step.stage] ?? [`Program of ${step.stage}`])[0]],
        [
          "calls of ops",
          both ? `${wording.count(before.nodes)} before, ${wording.count(after.nodes)} after` : "",
        ],
        ["difference from the module", accuracy(step.difference)],
        ["time taken", step.seconds === null ? "" : `${wording.significant(step.seconds)} s`],
      ]),
      html("div", { class: "columns" }, notes(step), both && operations(before, after)),
      texts(step, explanation),
    ];
  }

  /** ": 613 ops become 67", over all passes of a stage. */
  function totals(steps, explanation) {
    const [first, last] = [
      snapshot(explanation, steps[0].before),
      snapshot(explanation, steps.at(-1).after),
    ];
    if (!first || !last) return "";
    const become = first.nodes === last.nodes ? "" : ` become ${wording.count(last.nodes)}`;
    return `: ${wording.counted(first.nodes, "op")}${become}`;
  }

  /** All passes in one table, and the ops that each left. */
  function overview(explanation) {
    const after = (step) => snapshot(explanation, step.after);
    const known = explanation.passes.filter(after);
    const title = "All passes in one table";
    return html(
      "details",
      {},
      html("summary", {}, title),
      html(
        "div",
        { class: "columns" },
        tables.table(
          title,
          [
            { title: "pass", value: (step) => html("code", {}, step.name) },
            {
              title: "ops after it",
              number: true,
              value: (step) => (after(step) ? wording.count(after(step).nodes) : ""),
            },
            { title: "notes", number: true, value: (step) => wording.count(step.notes.length) },
            {
              title: "seconds",
              number: true,
              value: (step) => (step.seconds === null ? "" : wording.significant(step.seconds)),
            },
            { title: "difference from the module", value: (step) => accuracy(step.difference) },
          ],
          explanation.passes,
        ),
        known.length > 0 &&
          plots.bars(
            "Ops after each pass",
            known.map((step) => ({ label: step.name, value: after(step).nodes, sort: "row" })),
            wording.count,
          ),
      ),
    );
  }

  /** The strip of passes and the panel of the chosen one. */
  function view(explanation) {
    if (!explanation.passes.length) return null;
    const shown = html("div", { class: "panel", id: "pass", "aria-live": "polite" });
    const buttons = new Map();
    const choose = (step) => {
      buttons.forEach((button, each) => button.setAttribute("aria-pressed", each === step));
      shown.replaceChildren(...panel(step, explanation).flat().filter(Boolean));
    };
    const button = (step) => {
      const sort = unchanged(step, explanation) ? "pass unchanged" : "pass";
      const made = html(
        "button",
        { type: "button", class: sort, "aria-controls": "pass", click: () => choose(step) },
        html("b", {}, step.name),
        " ",
        html("span", {}, effect(step, explanation)),
      );
      buttons.set(step, made);
      return html("li", {}, made);
    };
    const strip = groups(explanation.passes).map(([stage, steps]) => {
      const [title, about] = STAGES[stage] ?? [stage, "passes of this target alone"];
      return html(
        "section",
        { class: "strip" },
        html("h3", {}, title, " ", html("small", {}, about, totals(steps, explanation))),
        html("ol", {}, steps.map(button)),
      );
    });
    const changed = explanation.passes.filter(
      (step) => step.after !== null && !unchanged(step, explanation),
    );
    choose(changed[0] ?? explanation.passes[0]);
    return [html("div", { class: "strips" }, strip), overview(explanation), shown];
  }

  return { view };
})();
