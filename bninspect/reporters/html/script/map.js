// The map of all layers: a cell for each member, by its state; a shape each, and not colour alone.
const STATES = {
  e: ["error", "error", (x, y, s) => `M${x} ${y}h${s}v${s}h-${s}z`],
  w: ["warning", "warning", (x, y, s) => `M${x} ${y}L${x + s} ${y + s}H${x}z`],
  n: [
    "note",
    "note",
    (x, y, s) => `M${x + s / 2} ${y}l${s / 2} ${s / 2}l-${s / 2} ${s / 2}l-${s / 2}-${s / 2}z`,
  ],
  m: [
    "muted",
    "not counted (suppressed or known)",
    (x, y, s) => `M${x} ${y + s * 0.35}h${s}v${s * 0.3}h-${s}z`,
  ],
  f: [
    "fine",
    "no finding",
    (x, y, s) => `M${x + s * 0.3} ${y + s * 0.3}h${s * 0.4}v${s * 0.4}h-${s * 0.4}z`,
  ],
  a: ["absent", "not stored", (x, y, s) => `M${x + 0.5} ${y + 0.5}h${s - 1}v${s - 1}h-${s - 1}z`],
};
const FEW = 24; // layers, each of which has its name beside it

// Layers in groups by the beginning of their names, as deep as leaves a label for each group.
const groupsOf = (layers) => {
  const parts = layers.map((layer) => layer.name.split("/"));
  let groups = [["", layers.map((_, index) => index)]];
  for (let depth = 1; depth < 8; depth += 1) {
    const deeper = [];
    parts.forEach((names, index) => {
      const label = names.slice(0, Math.min(depth, names.length - 1)).join("/");
      if (deeper.length && deeper.at(-1)[0] === label) deeper.at(-1)[1].push(index);
      else deeper.push([label, [index]]);
    });
    if (deeper.length > FEW) break;
    groups = deeper;
  }
  return groups;
};

const shortName = (name, most) => (name.length > most ? `…${name.slice(1 - most)}` : name);

// Where each layer's cells are: few layers are rows with their names, many are columns in groups.
const placesOf = (layers, width) => {
  const [places, texts] = [[], []];
  if (layers.length <= FEW) {
    const most = Math.floor((width - 70) / 7.2);
    layers.forEach((layer, index) => {
      const y = index * 18 + 2;
      places.push({
        index,
        x: 2,
        y,
        cell: (member) => [2 + member * 14, y + 1, 11],
        width: Math.min(width, 62 + layer.name.length * 7.2),
        height: 16,
      });
      texts.push([64, y + 11, shortName(layer.name, most)]);
    });
    return { places, texts, height: layers.length * 18 + 4 };
  }
  const size = layers.length > 400 ? 5 : 8;
  const columns = Math.max(Math.floor((width - 44) / (size + 2)), 1);
  let top = 0;
  for (const [label, indexes] of groupsOf(layers)) {
    if (label) {
      texts.push([
        0,
        top + 12,
        `${shortName(label, Math.floor((width - 60) / 7.2))} (${indexes.length})`,
      ]);
      top += 18;
    }
    for (let first = 0; first < indexes.length; first += columns) {
      if (first === 0)
        (size < 8 ? [] : ["gamma", "beta", "mean", "var."]).forEach((name, member) =>
          texts.push([0, top + 8 + member * (size + 1), name, "small"]),
        );
      indexes.slice(first, first + columns).forEach((index, column) => {
        const [x, y] = [(size < 8 ? 2 : 40) + column * (size + 2), top];
        places.push({
          index,
          x,
          y,
          cell: (member) => [x, y + member * (size + 1), size],
          width: size + 2,
          height: 4 * (size + 1),
        });
      });
      top += 4 * (size + 1) + 6;
    }
  }
  return { places, texts, height: top };
};

const drawMap = (box) => {
  const { layers } = dataOf(box.dataset.snapshot);
  const width = Math.max(box.clientWidth, 200);
  const { places, texts, height } = placesOf(layers, width);
  const svg = shape("svg", {
    role: "group",
    tabindex: 0,
    width,
    height,
    viewBox: `0 0 ${width} ${height}`,
    "aria-label": `Map of ${plural(layers.length, "layer")}. Arrow keys read them, Enter opens one.`,
  });
  const paths = {};
  for (const place of places) {
    [...layers[place.index].cells].forEach((state, member) => {
      paths[state] = (paths[state] ?? "") + STATES[state][2](...place.cell(member));
    });
  }
  const cursor = shape("rect", { class: "cursor", width: 0, height: 0 });
  svg.append(
    cursor,
    ...Object.entries(paths).map(([state, d]) => shape("path", { class: STATES[state][0], d })),
  );
  svg.append(
    ...texts.map(([x, y, text, kind]) => shape("text", { x, y, class: kind ?? "" }, text)),
  );

  const readout = element(
    "p",
    { class: "readout" },
    "Point at a layer, or use the arrow keys, to read it.",
  );
  let current = -1;
  const move = (index, spoken) => {
    current = index;
    const [place, layer] = [places[index], layers[places[index].index]];
    for (const name of ["x", "y", "width", "height"])
      cursor.setAttribute(name, place[name] + { x: -1, y: -1, width: 1, height: 2 }[name]);
    const states = MEMBERS.map((member, role) => `${member} ${STATES[layer.cells[role]][1]}`).join(
      ", ",
    );
    readout.replaceChildren(element("a", { href: `#${layer.id}` }, layer.name), `: ${states}`);
    if (spoken) say(`${layer.name}: ${states}`);
  };
  const under = (event) => {
    const edge = svg.getBoundingClientRect();
    const [x, y] = [event.clientX - edge.left, event.clientY - edge.top];
    return places.findIndex(
      (one) =>
        x >= one.x - 1 && x < one.x + one.width && y >= one.y - 1 && y < one.y + one.height + 1,
    );
  };
  svg.addEventListener("pointermove", (event) => {
    const index = under(event);
    if (index >= 0 && index !== current) move(index, false);
  });
  svg.addEventListener("click", (event) => {
    if (under(event) >= 0) location.hash = layers[places[under(event)].index].id;
  });
  svg.addEventListener("keydown", (event) => {
    const goal = {
      ArrowRight: current + 1,
      ArrowDown: current + 1,
      ArrowLeft: current - 1,
      ArrowUp: current - 1,
      Home: 0,
      End: places.length - 1,
    }[event.key];
    if (goal !== undefined) {
      event.preventDefault();
      move(Math.min(Math.max(goal, 0), places.length - 1), true);
    } else if (event.key === "Enter" && current >= 0)
      location.hash = layers[places[current].index].id;
  });
  const used = new Set(layers.flatMap((layer) => [...layer.cells]));
  const legend = element(
    "ul",
    { class: "states" },
    ...Object.entries(STATES)
      .filter(([state]) => used.has(state))
      .map(([, [name, words, path]]) =>
        element(
          "li",
          {},
          shape(
            "svg",
            { "aria-hidden": "true", class: "key", viewBox: "0 0 10 10" },
            shape("path", { class: name, d: path(0, 0, 10) }),
          ),
          ` ${words}`,
        ),
      ),
  );
  const order = layers.length <= FEW ? "From left to right" : "From top to bottom";
  box.replaceChildren(
    element("p", { class: "legend" }, `${order}: ${MEMBERS.join(", ")}.`),
    legend,
    svg,
    readout,
  );
  box.dataset.width = width;
};

const startMaps = () => {
  const resized = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      if (
        target.dataset.width &&
        target.clientWidth &&
        Math.abs(target.clientWidth - target.dataset.width) > 1
      )
        drawMap(target);
    }
  });
  for (const box of all(".map")) {
    whenSeen(box, () => drawMap(box));
    resized.observe(box);
  }
};
