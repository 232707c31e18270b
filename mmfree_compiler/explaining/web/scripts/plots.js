"use strict";
// Plots, drawn by Observable Plot in the colours of the page.
const plots = (() => {
  const { html } = elements;
  const ROW = 26; // the height of a bar with its gap, in pixels
  const WIDTH = 600;
  const LETTER = 7.4; // the width of a letter, in pixels
  const LONGEST = 40; // letters of a label

  const figure = (caption, drawn) =>
    html(
      "figure",
      { role: "group", "aria-label": caption },
      html("figcaption", {}, caption),
      drawn,
    );

  const short = (text) => (text.length > LONGEST ? `${text.slice(0, LONGEST - 1)}…` : text);

  /** Horizontal bars of {label, value, mark, sort}; `mark` is a line to compare a bar with. */
  function bars(caption, rows, format) {
    const marked = rows.filter((row) => row.mark !== null && row.mark !== undefined);
    const order = rows.map((row) => row.label);
    const label = (row) =>
      row.mark ? `${format(row.value)}, at least ${format(row.mark)}` : format(row.value);
    const space = (texts) => Math.max(0, ...texts.map((text) => short(text).length)) * LETTER + 12;
    return figure(
      caption,
      Plot.plot({
        width: WIDTH,
        height: rows.length * ROW + 12,
        marginTop: 4,
        marginBottom: 8,
        marginLeft: space(order),
        marginRight: space(rows.map(label)),
        style: { background: "transparent", fontSize: "12.5px", overflow: "visible" },
        x: { axis: null },
        y: { domain: order, label: null, tickFormat: short, tickSize: 0 },
        marks: [
          Plot.barX(rows, {
            y: "label",
            x: "value",
            fill: (row) => `var(--${row.sort}-line)`,
            insetTop: 3,
            insetBottom: 3,
          }),
          Plot.tickX(marked, { y: "label", x: "mark", stroke: "currentColor", strokeWidth: 2 }),
          Plot.text(rows, {
            y: "label",
            x: (row) => Math.max(row.value, row.mark ?? 0),
            text: label,
            textAnchor: "start",
            dx: 6,
            fill: "currentColor",
          }),
          Plot.ruleX([0]),
        ],
      }),
    );
  }

  return { bars };
})();
