"use strict";
// Puts the page together from the explanation that is in it.
(() => {
  const { html } = elements;
  const explanation = JSON.parse(document.getElementById("explanation").textContent);

  const SECTIONS = [
    ["audit", "Audit", "Is a product of float matrices left?", () => sections.audit(explanation)],
    [
      "passes",
      "Passes",
      "What each pass did, in order. Choose one.",
      () => passes.view(explanation),
    ],
    [
      "program",
      "Program",
      "What a token goes through. Choose a box, with the mouse or arrow keys.",
      (part) => part?.program && graph.view(part),
    ],
    [
      "cost",
      "Cost",
      "What a step for one token reads and computes.",
      (part) => part?.program && sections.cost(part),
    ],
    [
      "memory",
      "Memory and kernels",
      "What the target keeps, and the code that was made.",
      (part) => part && sections.memory(part),
    ],
    [
      "coverage",
      "Coverage",
      "Which targets can run these ops.",
      () => explanation.coverage.length > 0 && sections.coverage(explanation),
    ],
  ];

  function facts(part) {
    const { model } = explanation;
    // A user waits longer: for the call, and for the choice of the token. mmfree bench measures that.
    const step = part?.decode_us ? `${wording.microseconds(part.decode_us)} ${part.how}` : "";
    return tables.facts([
      ["parameters", model.parameters === null ? "" : wording.count(model.parameters)],
      ["ternary weights", part ? wording.bytes(part.weight_bytes) : ""],
      ["embeddings", part?.embedding_bytes ? wording.bytes(part.embedding_bytes) : ""],
      ["state of a sequence", model.state_bytes ? wording.bytes(model.state_bytes) : ""],
      ["kernels of a decode step", step],
      ["builds", part ? part.builds.join(", ") : ""],
      ["runs here", part ? part.runs_here || "no build" : ""],
    ]);
  }

  function choice(chosen) {
    const { targets } = explanation;
    if (targets.length < 2) return null;
    const options = targets.map((part, i) =>
      html("option", { value: String(i), selected: part === chosen }, part.target),
    );
    const select = html(
      "select",
      { id: "target", change: () => show(targets[Number(select.value)]) },
      options,
    );
    return html("label", { for: "target" }, "Target ", select);
  }

  function show(part) {
    const shown = (...children) => children.flat(Infinity).filter(Boolean);
    document
      .getElementById("summary")
      .replaceChildren(
        ...shown(
          html(
            "p",
            { class: "quiet" },
            "mmfree_compiler: what was compiled, how, and what it costs",
          ),
          html("h1", {}, explanation.model.title),
          choice(part),
          explanation.summary && html("p", { class: "lead" }, `${explanation.summary}.`),
          explanation.failed && html("p", { class: "verdict bad" }, explanation.failed),
          facts(part),
          sections.missing([...explanation.missing, ...(part?.missing ?? [])]),
        ),
      );
    const known = SECTIONS.map(([id, title, about, view]) => [id, title, about, view(part)]).filter(
      ([, , , content]) => content,
    ); // the others are not known of this model
    document
      .getElementById("contents")
      .replaceChildren(...known.map(([id, title]) => html("a", { href: `#${id}` }, title)));
    document
      .getElementById("sections")
      .replaceChildren(
        ...known.map(([id, title, about, content]) =>
          html(
            "section",
            { id, "aria-labelledby": `${id}-title` },
            html("h2", { id: `${id}-title` }, title),
            html("p", { class: "quiet" }, about),
            content,
          ),
        ),
      );
  }

  show(explanation.targets[0]);
})();
