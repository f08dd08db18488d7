// Two checkpoints or models side by side: the distributions of each layer on one axis.
const sidesOf = () => {
  const sides = [];
  const nodes = all("script.snapshot");
  for (const node of nodes) {
    const { label, layers } = dataOf(node.id);
    const named = (step) => (nodes.length > 1 ? `${step}, ${label}` : step);
    const time = document.getElementById(`${node.id}-time`);
    for (const step of time ? dataOf(time.id).earlier : []) {
      const names = dataOf(time.id).layers.map((layer) => layer.name);
      const present = names
        .map((name, index) => [name, step.bins[index]])
        .filter(([, bins]) => bins);
      sides.push({ label: named(step.label), layers: new Map(present) });
    }
    const newest = time ? named(dataOf(time.id).labels.at(-1)) : label;
    sides.push({ label: newest, layers: new Map(layers.map((layer) => [layer.name, layer.bins])) });
  }
  return sides;
};

const isDrawn = (record) => record !== undefined && typeof record !== "string";
const sharedAxis = (records) => {
  const bins = records.filter(isDrawn).map(binsOf);
  if (!bins.length) return null;
  const [low, high] = [
    Math.min(...bins.map((one) => one.low)),
    Math.max(...bins.map((one) => one.high)),
  ];
  return axisOf(
    low,
    high,
    bins.every((one) => one.logarithmic),
  );
};
const spreadOf = (record) =>
  record === undefined ? "no such layer" : isDrawn(record) ? binsOf(record).spread : record;

const pairTable = (sides) => {
  const names = [...new Set(sides.flatMap((side) => [...side.layers.keys()]))];
  const rows = names.map((name) => {
    const row = element("tr", {}, element("th", { scope: "row" }, name));
    MEMBERS.forEach((_, member) => {
      const records = sides.map((side) => side.layers.get(name)?.[member]);
      const text = records.map((record, side) => `${"AB"[side]}: ${spreadOf(record)}`).join("; ");
      const cell = element("td", { "data-text": text }, text);
      row.append(cell);
      whenSeen(cell, () => {
        const axis = sharedAxis(records);
        if (axis)
          cell.replaceChildren(
            ...records.map((record, side) =>
              histogram("AB"[side], record ?? "no such layer", axis, [240, 84]),
            ),
          );
      });
    });
    return row;
  });
  const heads = ["Layer", ...MEMBERS].map((name) => element("th", { scope: "col" }, name));
  const table = element(
    "table",
    { class: "pairs", "data-noun": "layers", "data-file": "side-by-side" },
    element("thead", {}, element("tr", {}, ...heads)),
    element("tbody", {}, ...rows),
  );
  const box = element(
    "div",
    {
      class: "scroll long",
      role: "region",
      "aria-label": "Table of layers side by side",
      tabindex: 0,
    },
    table,
  );
  const place = element("div", {}, box);
  addTools(table);
  addScrollHint(box);
  return place;
};

const startSides = () => {
  const section = document.getElementById("sides");
  const count = all("script.snapshot").length + all("script[id$='-data-time']").length;
  if (count < 2) return;
  section.hidden = false;
  const button = element("button", { type: "button" }, "Choose two");
  section.append(
    element(
      "p",
      { class: "legend" },
      "The distributions of two checkpoints or models, layer by layer, on one axis. Layers with one name are compared.",
    ),
    button,
  );
  button.addEventListener("click", () => {
    const sides = sidesOf();
    const select = (name, chosen) => {
      const box = element(
        "select",
        {},
        ...sides.map((side, index) => element("option", { value: index }, side.label)),
      );
      box.value = chosen;
      return [box, element("label", {}, `${name} `, box)];
    };
    const [first, firstLabel] = select("A", 0);
    const [second, secondLabel] = select("B", sides.length - 1);
    const place = element("div", {});
    const draw = () => place.replaceChildren(pairTable([sides[first.value], sides[second.value]]));
    const form = element("p", { class: "filter" }, firstLabel, secondLabel);
    form.addEventListener("input", draw);
    button.replaceWith(form, place);
    draw();
    first.focus();
  });
};
