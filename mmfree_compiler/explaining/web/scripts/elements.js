"use strict";
// Elements of HTML and SVG. Texts of a model become text nodes: nothing here parses markup.
const elements = (() => {
  const SVG = "http://www.w3.org/2000/svg";

  function filled(made, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
      if (typeof value === "function") made.addEventListener(name, value);
      else if (value !== null && value !== false)
        made.setAttribute(name, value === true ? "" : value);
    }
    // append() makes text nodes of strings.
    made.append(...children.flat(Infinity).filter((child) => child !== null && child !== false));
    return made;
  }

  /** An HTML element; an attribute whose value is a function becomes a listener of that event. */
  const html = (tag, attributes = {}, ...children) =>
    filled(document.createElement(tag), attributes, children);

  /** The same in SVG. */
  const svg = (tag, attributes = {}, ...children) =>
    filled(document.createElementNS(SVG, tag), attributes, children);

  /** A text in which `backticks` mark code. */
  const prose = (text) =>
    text.split(/`([^`]*)`/).map((part, i) => (i % 2 ? html("code", {}, part) : part));

  return { html, prose, svg };
})();
