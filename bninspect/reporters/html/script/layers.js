// A layer opens below its row: findings, settings, distributions and channels.
const channelsOf = (layer) => {
  const decoded = {};
  for (const [member, packed] of Object.entries(layer.channels)) {
    decoded[member] = Array.isArray(packed)
      ? new Float32Array(packed[1]).fill(packed[0])
      : new Float32Array(Uint8Array.from(atob(packed), (byte) => byte.charCodeAt(0)).buffer);
  }
  return decoded;
};

// Which values are at the initial one; as float32 more may look so than are: then none is marked.
const stuckIn = (values, record) => {
  if (typeof record === "string") return () => false;
  const { initial: stored, atInitial } = binsOf(record);
  const initial = stored === null ? null : Math.fround(stored);
  const equal = values.reduce((sum, value) => sum + (value === initial), 0);
  return (value) => equal === atInitial && value === initial;
};

const channelView = (layer) => {
  if (layer.bins.every((record) => typeof record === "string")) return "";
  if (!layer.channels) {
    return element(
      "p",
      { class: "legend" },
      "Not all channels fit on this page. Those of this layer: ",
      element("code", {}, `bninspect dump PATH --layer '${layer.name}'`),
    );
  }
  const values = channelsOf(layer);
  const members = MEMBERS.filter((member) => values[member]);
  // The members of a damaged layer may have different numbers of channels.
  const valueOf = (member, index) => (index < values[member].length ? values[member][index] : null);
  const wordsAt = (index) => {
    const parts = members.map((member) => {
      const value = valueOf(member, index);
      return `${member} ${value === null ? "not stored" : number(value)}`;
    });
    return `channel ${index}: ${parts.join(", ")}`;
  };
  const choice = element("select", {}, ...members.map((member) => element("option", {}, member)));
  if (values.moving_mean) choice.value = "moving_mean";
  const csv = element("button", { type: "button" }, "CSV");
  csv.addEventListener("click", () => {
    const size = Math.max(...members.map((member) => values[member].length));
    const rows = Array.from({ length: size }, (_, index) => [
      String(index),
      ...members.map((member) => String(valueOf(member, index) ?? "")),
    ]);
    save("channels.csv", [["channel", ...members], ...rows]);
  });
  const place = element("div", {});
  const draw = () =>
    place.replaceChildren(
      channelChart(
        choice.value,
        values[choice.value],
        wordsAt,
        stuckIn(values[choice.value], layer.bins[MEMBERS.indexOf(choice.value)]),
      ),
    );
  choice.addEventListener("input", draw);
  draw();
  return element(
    "div",
    { class: "channels" },
    element("p", { class: "filter" }, element("label", {}, "Channels of ", choice), csv),
    place,
  );
};

const detailRow = (row, layer) => {
  const found = (layer.findings ?? []).map(([state, code, message]) =>
    element(
      "p",
      {},
      element("b", { class: `badge ${state}` }, state === "muted" ? "not counted" : state),
      " ",
      element("a", { href: `#rule-${code}` }, code),
      ` ${message}`,
    ),
  );
  const facts = [...(layer.before ? [`after ${layer.before}`] : []), ...layer.facts].join(" · ");
  const body = element(
    "div",
    { class: "detail-body" },
    ...found,
    element("p", { class: "facts" }, facts),
    element(
      "div",
      { class: "charts" },
      ...layer.bins.map((record, place) => histogram(DISTRIBUTIONS[place], record)),
    ),
    channelView(layer),
  );
  return element("tr", { class: "detail" }, element("td", { colspan: row.cells.length }, body));
};

const open = (row, opens = true) => {
  const link = row.querySelector("a.name");
  const detail = detailOf(row);
  link.setAttribute("aria-expanded", opens);
  if (!opens) detail?.remove();
  else if (!detail) {
    const table = row.closest("table");
    row.after(
      detailRow(
        row,
        dataOf(table.dataset.snapshot).layers.find((layer) => layer.id === row.id),
      ),
    );
  }
};

const FULL = 3; // Layers that are all open from the beginning.
const startLayers = () => {
  for (const table of all("table.layers")) {
    for (const link of all("a.name", table)) link.setAttribute("aria-expanded", false);
    table.addEventListener("click", (event) => {
      const link = event.target.closest("a.name");
      if (!link) return;
      event.preventDefault();
      const row = link.closest("tr");
      open(row, link.getAttribute("aria-expanded") === "false");
    });
  }
  const units = all(".unit");
  if (units.length !== 1) return;
  const rows = all("table.layers tbody tr");
  const shown =
    rows.length <= FULL ? rows : rows.filter((row) => row.querySelector(".badge")).slice(0, 1);
  for (const row of shown) whenSeen(row, () => open(row));
};

const startTrends = () => {
  for (const table of all("table[data-trends]")) {
    for (const row of table.tBodies[0].rows) {
      whenSeen(row, () => {
        const time = dataOf(table.dataset.trends);
        time.layers[row.dataset.place].trends.forEach((record, place) => {
          const cell = row.cells[place + 1];
          cell.replaceChildren(trend(MEMBERS[place + 2], record, time, cell.dataset.text));
        });
      });
    }
  }
};
