// Tables: sorted by a click on a head, filtered by name and by choice, written as CSV.
const textOf = (cell) => cell.dataset.text ?? cell.textContent.trim();
const rowsOf = (table) =>
  [...table.tBodies[0].rows].filter((row) => !row.classList.contains("detail"));
const detailOf = (row) =>
  row.nextElementSibling?.classList.contains("detail") ? row.nextElementSibling : null;

// An empty cell comes last, numbers by their value, texts as a person sorts them: 2 before 10.
const compareTexts = (a, b) => {
  const [x, y] = [a, b].map((text) => Number(text.replace(/^(-?)inf$/, "$1Infinity")));
  if (!Number.isNaN(x) && !Number.isNaN(y)) return x === y ? 0 : x - y;
  return a.localeCompare(b, "en", { numeric: true });
};

const sortBy = (table, place, down) => {
  const keyed = rowsOf(table).map((row) => [
    row.cells[place].dataset.order ?? textOf(row.cells[place]),
    row,
    detailOf(row),
  ]);
  keyed.sort(([a], [b]) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    return down ? compareTexts(b, a) : compareTexts(a, b);
  });
  table.tBodies[0].append(...keyed.flatMap(([, row, detail]) => (detail ? [row, detail] : [row])));
};

const addSorting = (table) => {
  const heads = all("thead th", table);
  heads.forEach((head, place) => {
    const button = element("button", { type: "button" }, head.textContent);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      sortBy(table, place, down);
    });
  });
};

// A text as a cell of CSV; what a spreadsheet would take for a formula gets an apostrophe.
const csvCell = (text) => {
  const safe = /^[=+\-@]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
  return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
};
const save = (name, lines) => {
  const text = lines.map((cells) => cells.map(csvCell).join(",")).join("\n");
  const link = element("a", {
    download: name,
    href: URL.createObjectURL(new Blob([`${text}\n`], { type: "text/csv" })),
  });
  link.click();
  URL.revokeObjectURL(link.href);
};

// The choices of a column: its words, each once, in the order of the rows.
const choicesOf = (rows, place, kind) => {
  const words = new Set(
    rows.flatMap((row) =>
      kind === "rule" ? textOf(row.cells[place]).split(" ") : [textOf(row.cells[place])],
    ),
  );
  const named = [...words].filter(Boolean).map((word) => [word, word]);
  if (kind === "rule") named.sort();
  if (kind === "finding" && named.some(([word]) => word !== "not counted"))
    named.unshift(["any", "any that counts"]);
  if (words.has("")) named.push(["none", kind === "finding" ? "no finding" : "none"]);
  return named;
};
const fitsChoice = (text, wanted) => {
  if (!wanted) return true;
  if (wanted === "none") return text === "";
  if (wanted === "any") return text !== "" && text !== "not counted";
  return text === wanted || text.split(" ").includes(wanted);
};

const FEW_ROWS = 2; // which need no filter
// Above the table: the filter, where there are many rows, how much is shown, and CSV.
const addTools = (table) => {
  const rows = rowsOf(table);
  const heads = all("thead th", table);
  const titles = heads.map((head) => head.textContent);
  const count = element("output", {});
  const csv = element("button", { type: "button" }, "CSV");
  const form = element("form", {
    class: "filter",
    "aria-label": `Filter: ${table.closest(".scroll").getAttribute("aria-label")}`,
  });
  csv.addEventListener("click", () => {
    const shown = rowsOf(table).filter((row) => !row.hidden);
    save(`${table.dataset.file}.csv`, [titles, ...shown.map((row) => [...row.cells].map(textOf))]);
  });
  if (rows.length > FEW_ROWS) {
    const name = element("input", { type: "search", name: "name", autocomplete: "off" });
    const choices = heads.flatMap((head, place) => {
      if (!head.dataset.choice) return [];
      const options = choicesOf(rows, place, head.dataset.choice);
      if (options.length < 2) return [];
      const chosen = element(
        "select",
        { name: head.dataset.choice },
        element("option", { value: "" }, "all"),
        ...options.map(([value, text]) => element("option", { value }, text)),
      );
      return [[place, chosen, titles[place]]];
    });
    const namePlace = heads.findIndex((_, place) => rows[0].cells[place].tagName === "TH");
    const filter = () => {
      const wanted = name.value.trim().toLowerCase();
      let shown = 0;
      for (const row of rows) {
        const fits =
          textOf(row.cells[namePlace]).toLowerCase().includes(wanted) &&
          choices.every(([place, chosen]) => fitsChoice(textOf(row.cells[place]), chosen.value));
        row.hidden = !fits;
        const detail = detailOf(row);
        if (detail) detail.hidden = !fits;
        shown += fits;
      }
      count.textContent = `${shown} of ${rows.length} ${table.dataset.noun}`;
    };
    form.append(
      element("label", {}, "Name ", name),
      ...choices.map(([, chosen, title]) => element("label", {}, `${title} `, chosen)),
      element("button", { type: "reset" }, "Show all"),
    );
    form.addEventListener("input", filter);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(filter));
    table.showAll = () => {
      form.reset();
      filter();
    };
    filter();
  }
  form.append(csv, count);
  table.closest(".scroll").before(form);
};

// A table that is wider than its box says so.
const addScrollHint = (box) => {
  const hint = element(
    "p",
    { class: "hint", hidden: true, "aria-hidden": "true" },
    "The table goes on to the right: scroll it sideways →",
  );
  box.before(hint);
  const look = () => {
    hint.hidden = box.scrollWidth <= box.clientWidth + 1;
    box.classList.toggle("cut", box.scrollLeft + box.clientWidth < box.scrollWidth - 1);
  };
  new ResizeObserver(look).observe(box);
  box.addEventListener("scroll", look, { passive: true });
  box.addEventListener("contentvisibilityautostatechange", () => requestAnimationFrame(look));
};

const startTables = () => {
  for (const table of all("table.tools")) {
    for (const cell of all("tbody td, tbody th", table))
      if (table.dataset.trends) cell.dataset.text = cell.textContent.trim();
    addTools(table);
    addSorting(table);
  }
  for (const box of all(".scroll")) addScrollHint(box);
};
