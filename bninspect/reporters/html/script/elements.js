// Elements, numbers as the program writes them, and the data in the page.
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

const filled = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
};
const element = (tag, attributes = {}, ...children) =>
  filled(document.createElement(tag), attributes, children);
const shape = (tag, attributes = {}, ...children) =>
  filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

// Three significant digits, as Python's format ".3g".
const number = (value) => {
  if (!Number.isFinite(value)) return String(value).replace("Infinity", "inf").toLowerCase();
  const [digits, exponent] = value.toExponential(2).split("e").map(Number);
  if (exponent >= -4 && exponent < 3) return String(Number(value.toPrecision(3)));
  return `${digits}e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
};
const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

const parsed = new Map();
const dataOf = (id) => {
  if (!parsed.has(id)) parsed.set(id, JSON.parse(document.getElementById(id).textContent));
  return parsed.get(id);
};

// Say something to readers who cannot see what changed.
const say = (text) => {
  document.querySelector(".live").textContent = text;
};

// Draw what is shown only when it is near the window: a page may have thousands of charts.
const pending = new Map();
const watcher = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) if (entry.isIntersecting) drawNow(entry.target);
  },
  { rootMargin: "400px" },
);
const drawNow = (node) => {
  const draw = pending.get(node);
  pending.delete(node);
  watcher.unobserve(node);
  if (draw) draw();
};
const whenSeen = (node, draw) => {
  pending.set(node, draw);
  watcher.observe(node);
};
