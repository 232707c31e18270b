"use strict";
// Tables: of columns and rows, and of the facts of one thing.
const tables = (() => {
  const { html } = elements;

  /**
   * A table. Columns are {title, value, number}: `value` makes a row's cell, a text or an
   * element; numbers are aligned at the right. Columns without any value are left out.
   */
  function table(caption, all, rows) {
    const columns = all.filter((column) => rows.some((row) => (column.value(row) ?? "") !== ""));
    const sort = (column) => ({ class: column.number ? "number" : null });
    const head = columns.map((column) =>
      html("th", { scope: "col", ...sort(column) }, column.title),
    );
    const line = (row) =>
      html(
        "tr",
        {},
        columns.map((column) => html("td", sort(column), column.value(row))),
      );
    return html(
      "div",
      { class: "scroll", tabindex: "0", role: "group", "aria-label": caption },
      html(
        "table",
        {},
        html("caption", {}, caption),
        html("thead", {}, html("tr", {}, head)),
        html("tbody", {}, rows.map(line)),
      ),
    );
  }

  /** Pairs of a name and a value; those without a value are left out. */
  function facts(pairs) {
    const known = pairs.filter(([, value]) => value !== null && value !== "");
    return html(
      "dl",
      {},
      known.map(([name, value]) => html("div", {}, html("dt", {}, name), html("dd", {}, value))),
    );
  }

  const cell = (value) => (typeof value === "number" ? wording.count(value) : value);

  /** A table of a backend: the names of rows, and whatever facts they have. */
  function free(caption, first, rows) {
    const titles = [...new Set(Object.values(rows).flatMap((facts) => Object.keys(facts)))];
    const numeric = (title) =>
      Object.values(rows).every((row) => typeof (row[title] ?? 0) === "number");
    return table(
      caption,
      [
        { title: first, value: ([name]) => html("code", {}, name) },
        ...titles.map((title) => ({
          title,
          number: numeric(title),
          value: ([, row]) => cell(row[title] ?? ""),
        })),
      ],
      Object.entries(rows),
    );
  }

  return { facts, free, table };
})();
