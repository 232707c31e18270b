"use strict";
// Two texts side by side, with what differs marked. Long equal parts are folded.
const differences = (() => {
  const { html } = elements;
  const CONTEXT = 2; // equal lines that are shown around a difference
  const LIMIT_MS = 2000; // for one comparison

  const lines = (part) => part.value.replace(/\n$/, "").split("\n");

  /** Rows of {before, after, same}; null where a side has no line. */
  function rows(before, after) {
    const parts = Diff.diffLines(`${before}\n`, `${after}\n`, { timeout: LIMIT_MS }) ?? [
      { value: before, removed: true },
      { value: after, added: true },
    ];
    const found = [];
    let removed = [];
    const unpaired = () =>
      removed.splice(0).forEach((line) => found.push({ before: line, after: null }));
    for (const part of parts) {
      if (part.removed) removed = lines(part);
      else if (part.added)
        for (const line of lines(part)) {
          found.push({ before: removed.length ? removed.shift() : null, after: line });
        }
      else {
        unpaired();
        found.push(...lines(part).map((line) => ({ before: line, after: line, same: true })));
      }
      if (part.added) unpaired();
    }
    unpaired();
    return found;
  }

  /** One side of a row: words that the other side does not have are marked. */
  function side(row, name) {
    const text = row[name];
    if (text === null) return html("td", { class: "absent" });
    if (row.same) return html("td", {}, text);
    const other = row[name === "before" ? "after" : "before"];
    const mark = name === "before" ? "del" : "ins";
    if (other === null) return html("td", { class: name }, text);
    const words = Diff.diffWordsWithSpace(row.before, row.after, { timeout: LIMIT_MS }) ?? [];
    const own = words.filter((word) => !(name === "before" ? word.added : word.removed));
    const marked = (word) => (word.added || word.removed ? html(mark, {}, word.value) : word.value);
    return html("td", { class: name }, own.length ? own.map(marked) : text);
  }

  const line = (row) => html("tr", {}, side(row, "before"), side(row, "after"));

  /** A row that stands for equal lines; they appear in its place when it is activated. */
  function fold(hidden) {
    const open = () => folded.replaceWith(...hidden.map(line));
    const label = `${wording.counted(hidden.length, "equal line")}, show`;
    const folded = html(
      "tr",
      { class: "fold" },
      html("td", { colspan: "2" }, html("button", { type: "button", click: open }, label)),
    );
    return folded;
  }

  /** Runs of equal rows, each shortened to what is around a difference. */
  function folded(all) {
    const near = (index) =>
      all.slice(Math.max(0, index - CONTEXT), index + CONTEXT + 1).some((row) => !row.same);
    const shown = [];
    let hidden = [];
    const flush = () => {
      if (hidden.length > 1) shown.push(fold(hidden));
      else shown.push(...hidden.map(line));
      hidden = [];
    };
    all.forEach((row, index) => {
      if (near(index)) flush();
      if (near(index)) shown.push(line(row));
      else hidden.push(row);
    });
    flush();
    return shown;
  }

  /** The table of both texts. */
  function sideBySide(before, after) {
    return html(
      "div",
      {
        class: "scroll difference",
        tabindex: "0",
        role: "group",
        "aria-label": "Text before and after",
      },
      html(
        "table",
        {},
        html(
          "thead",
          {},
          html(
            "tr",
            {},
            html("th", { scope: "col" }, "Before"),
            html("th", { scope: "col" }, "After"),
          ),
        ),
        html("tbody", {}, folded(rows(before, after))),
      ),
    );
  }

  return { sideBySide };
})();
