"use strict";
// The graph of a Program: boxes that are chosen with the mouse or the keyboard.
const graph = (() => {
  const { html, svg } = elements;
  const RADIUS = 6; // of the bends of lines, in pixels

  /** A path through points with round bends. */
  function path(points) {
    const parts = [`M${points[0]}`];
    for (let i = 1; i < points.length - 1; i += 1) {
      const toward = (other) => {
        const [x, y] = points[i];
        const [dx, dy] = [other[0] - x, other[1] - y];
        const reach = Math.min(RADIUS / (Math.hypot(dx, dy) || 1), 0.5);
        return [x + dx * reach, y + dy * reach];
      };
      parts.push(`L${toward(points[i - 1])}Q${points[i]} ${toward(points[i + 1])}`);
    }
    return `${parts.join("")}L${points.at(-1)}`;
  }

  /** "next layer" along the longest part of the line that goes around a loop. */
  function around(points) {
    const parts = points.slice(1).map((end, i) => [points[i], end]);
    const length = ([from, to]) => Math.hypot(to[0] - from[0], to[1] - from[1]);
    const [from, to] = parts.reduce((best, part) => (length(part) > length(best) ? part : best));
    const middle = `${(from[0] + to[0]) / 2} ${(from[1] + to[1]) / 2}`;
    const turn = from[0] === to[0] ? "rotate(-90)" : "";
    return svg(
      "text",
      { class: "title", "text-anchor": "middle", dy: 4, transform: `translate(${middle}) ${turn}` },
      "next layer",
    );
  }

  const line = ({ edge, points }) =>
    svg(
      "path",
      {
        d: path(points),
        class: edge.carried ? "edge carried" : "edge",
        "marker-end": "url(#arrow)",
        "data-source": edge.source,
        "data-target": edge.target,
      },
      svg("title", {}, edge.name),
    );

  function title(placed) {
    if (placed.node) return placed.node.op;
    return "count" in placed.box ? `Loop: ${names.loop(placed.box)}` : names.stage(placed.box);
  }

  function texts(placed) {
    const { node, x, y, width, height } = placed;
    if (!node) return svg("text", { x: x + 12, y: y + 20, class: "title" }, title(placed));
    const middle = { x: x + width / 2, "text-anchor": "middle" };
    if (node.kind === "carried") return svg("text", { ...middle, y: y + height / 2 + 4 }, node.op);
    return [
      svg(
        "text",
        { ...middle, y: y + height / 2 - 3, class: "op" },
        names.short(names.title(node)),
      ),
      svg("text", { ...middle, y: y + height / 2 + 13 }, names.short(names.subtitle(node))),
    ];
  }

  function box(placed, choose) {
    const { node, x, y, width, height } = placed;
    const sort = node
      ? `node ${node.kind === "carried" ? "carried" : names.sort(node)}`
      : "count" in placed.box
        ? "loop"
        : "stage";
    const label =
      node && node.kind !== "carried"
        ? `${names.title(node)} ${names.subtitle(node)}`
        : title(placed);
    return svg(
      "g",
      {
        class: sort,
        "data-id": placed.id,
        role: "button",
        tabindex: "-1",
        "aria-label": label,
        "aria-pressed": "false",
        click: () => choose(placed.id),
      },
      svg("rect", { x, y, width, height, rx: node ? 6 : 8 }),
      texts(placed),
    );
  }

  const arrow = () =>
    svg(
      "defs",
      {},
      svg(
        "marker",
        {
          id: "arrow",
          viewBox: "0 0 8 8",
          refX: 7,
          refY: 4,
          markerWidth: 9,
          markerHeight: 9,
          markerUnits: "userSpaceOnUse",
          orient: "auto",
        },
        svg("path", { d: "M0 0L8 4L0 8z", class: "arrow" }),
      ),
    );

  /** Arrow keys go through the boxes in their order from the top, Enter and space choose one. */
  function keys(event, groups, choose) {
    const at = groups.findIndex((group) => group === document.activeElement);
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    const next = step ? groups[at + step] : ["Enter", " "].includes(event.key) && groups[at];
    if (at < 0 || !next) return;
    event.preventDefault();
    choose(next.dataset.id);
    next.focus();
  }

  /** The drawn graph, and what marks a box and scrolls to one; `chosen` is called with a box's id. */
  function drawing(places, chosen) {
    const inOrder = [...places.boxes].sort((a, b) => a.y - b.y || a.x - b.x);
    const groups = new Map(places.boxes.map((placed) => [placed.id, box(placed, chosen)]));
    const lines = places.lines.map(line);
    const order = inOrder.map((placed) => groups.get(placed.id));
    const picture = svg(
      "svg",
      {
        width: places.width,
        height: places.height,
        role: "group",
        viewBox: `0 0 ${places.width} ${places.height}`,
        "aria-label": "Graph of the program",
        keydown: (event) => keys(event, order, chosen),
      },
      arrow(),
      [...groups.values()].filter((group) => !group.classList.contains("node")),
      lines,
      places.lines.filter(({ edge }) => edge.carried).map(({ points }) => around(points)),
      [...groups.values()].filter((group) => group.classList.contains("node")),
    );
    const mark = (id) => {
      groups.forEach((group, each) => {
        group.setAttribute("aria-pressed", each === id);
        group.setAttribute("tabindex", each === id ? "0" : "-1");
      });
      lines.forEach((each) =>
        each.classList.toggle("near", each.dataset.source === id || each.dataset.target === id),
      );
    };
    const reveal = (id) => groups.get(id)?.scrollIntoView({ block: "nearest", inline: "nearest" });
    return { picture, mark, reveal };
  }

  const LEGEND = [
    ["row", "needs whole rows"],
    ["product", "product of a ternary matrix"],
    ["tile", "each column alone"],
    ["scan", "recurrence over tokens"],
    ["state", "state of a sequence"],
  ];

  const legend = () =>
    html(
      "ul",
      { class: "legend" },
      LEGEND.map(([sort, text]) => html("li", {}, html("span", { class: `swatch ${sort}` }), text)),
    );

  /** Some milliseconds later: the layout of a large graph takes seconds, the rest need not wait. */
  const painted = () =>
    new Promise((resolve) => {
      setTimeout(resolve, 20);
    });

  /** The graph with the panel of what is chosen beside it. */
  function view(target) {
    const { program } = target;
    const holder = html("div", { class: "graph" }, html("p", {}, "Laying out the graph"));
    const panel = html("aside", { class: "panel", id: "chosen", "aria-live": "polite" });
    let drawn = null;
    const choose = (id) => {
      drawn.mark(id);
      panel.replaceChildren(...details.of(id, target, follow).flat(Infinity).filter(Boolean));
      panel.scrollTop = 0;
    };
    const follow = (id) => {
      choose(id);
      drawn.reveal(id);
    };
    const first = program.nodes.find(names.ternary) ?? program.nodes.find(names.isOp);
    const draw = async (constants) => {
      await painted();
      drawn = drawing(await layout.of(program, constants), choose);
      holder.replaceChildren(drawn.picture);
      holder.scrollLeft = (holder.scrollWidth - holder.clientWidth) / 2;
      if (first) choose(first.id);
      holder.dataset.drawn = "true";
    };
    const failed = (error) => {
      holder.replaceChildren(html("p", {}, `The graph could not be laid out: ${error.message}`));
    };
    const toggle = html("input", {
      type: "checkbox",
      id: "constants",
      change: () => draw(toggle.checked).catch(failed),
    });
    draw(false).catch(failed);
    return [
      html(
        "div",
        { class: "bar" },
        legend(),
        html("label", { for: "constants" }, toggle, " show constants"),
      ),
      html("div", { class: "beside" }, holder, panel),
    ];
  }

  return { view };
})();
