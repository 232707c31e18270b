"use strict";
// Numbers as readers want them.
const wording = (() => {
  const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
  const UNITS = ["B", "kB", "MB", "GB", "TB"];

  /** Three digits, with groups: "0.0513", "21,100". */
  const significant = (number) =>
    number >= 1000 ? count(Number(number.toPrecision(3))) : String(Number(number.toPrecision(3)));

  const count = (number) => grouped.format(number);

  /** "1 stage", "4 stages". */
  const counted = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

  /** Decimal units, as memory bandwidth is given in them. */
  function bytes(number) {
    const power = Math.min(UNITS.length - 1, Math.floor(Math.log10(Math.max(number, 1)) / 3));
    return `${significant(number / 1000 ** power)} ${UNITS[power]}`;
  }

  const microseconds = (number) =>
    Math.abs(number) >= 1000 ? `${significant(number / 1000)} ms` : `${significant(number)} µs`;

  /** A difference, which may be the text "Infinity" or "NaN". */
  const relative = (number) =>
    Number.isFinite(Number(number)) ? Number(number).toExponential(1) : String(number);

  /** "+3", "−34", "0": a change with its sign. */
  const change = (number) => (number > 0 ? `+${count(number)}` : count(number).replace("-", "−"));

  return { bytes, change, count, counted, microseconds, relative, significant };
})();
