// Filter and sort. Without this script all content is there, in the order of the network.
(() => {
  "use strict";
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const form = document.querySelector("form.filter");
  const byId = new Map();
  for (const row of all("table.numbers tbody tr")) {
    const section = document.getElementById(row.dataset.layer);
    byId.set(row.dataset.layer, {
      section,
      places: [row, section],
      name: section.querySelector(".name").textContent.toLowerCase(),
      rules: row.dataset.rules.split(" "),
      state: row.dataset.state,
    });
  }
  for (const place of all(".map li, table.trends tr[data-layer]")) {
    byId.get(place.dataset.layer).places.push(place);
  }
  const layers = [...byId.values()];

  const filter = () => {
    const wanted = form.elements.name.value.trim().toLowerCase();
    const state = form.elements.state.value;
    const rule = form.elements.rule.value;
    let shown = 0;
    for (const one of layers) {
      const fits =
        one.name.includes(wanted) &&
        (!state || one.state === state || (state === "any" && !["muted", "fine"].includes(one.state))) &&
        (!rule || one.rules.includes(rule));
      for (const place of one.places) place.hidden = !fits;
      shown += fits;
    }
    form.querySelector("output").textContent = `${shown} of ${layers.length} layers`;
  };

  if (form) {
    form.hidden = false;
    form.addEventListener("input", filter);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(filter));
    filter();
  }

  // What a cell sorts by: its number, or its text; findings by their gravity, as the form has it.
  const gravity = form && all("option", form.elements.state).map((one) => one.value);
  const value = (cell) => {
    if (cell.querySelector(".badge")) return `${gravity.indexOf(cell.parentElement.dataset.state)}`;
    return cell.textContent.trim();
  };
  const number = (text) => Number(text.replace(/^(-?)inf$/, "$1Infinity"));
  const compare = (a, b) => {
    if (a === b) return 0;
    if (a === "") return 1; // what is not there comes last
    if (b === "") return -1;
    const [x, y] = [number(a), number(b)];
    if (!Number.isNaN(x) && !Number.isNaN(y)) return x - y;
    return a.localeCompare(b, "en", { numeric: true });
  };
  for (const table of all("table.numbers")) {
    const heads = all("thead th", table);
    const body = table.tBodies[0];
    const cards = document.getElementById(body.rows[0].dataset.layer).parentElement;
    heads.forEach((head, place) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...body.rows].map((row) => [value(row.cells[place]), row]);
        rows.sort(([a], [b]) => {
          const empty = a === "" || b === "";
          return down && !empty ? compare(b, a) : compare(a, b);
        });
        body.append(...rows.map(([, row]) => row));
        cards.append(...rows.map(([, row]) => byId.get(row.dataset.layer).section));
      });
    });
  }

  // A link leads to its target, also to one that is filtered out or folded away.
  const reveal = () => {
    const target = document.getElementById(location.hash.slice(1));
    if (!target) return;
    if (target.hidden) {
      form.reset();
      setTimeout(() => target.scrollIntoView());
    }
    if (target.tagName === "DETAILS") target.open = true;
  };
  addEventListener("hashchange", reveal);
  addEventListener("click", (event) => {
    // Of a link to where the page is already nothing else tells.
    if (location.hash && event.target.closest("a")?.hash === location.hash) reveal();
  });
  reveal();
  addEventListener("beforeprint", () => {
    for (const one of all("details")) one.open = true;
  });
})();
