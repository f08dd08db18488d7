// Copying, links to what is folded, print; then everything is started.
const copy = async (button) => {
  const text = document.getElementById(button.dataset.copy).innerText.trim();
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = element("textarea", { readonly: true, class: "clip" }); // without a secure origin
    area.value = text;
    document.body.append(area);
    area.select();
    done = document.execCommand("copy");
    area.remove();
    button.focus();
  }
  button.textContent = done ? "Copied" : "Press Ctrl+C";
  say(button.textContent);
  setTimeout(() => {
    button.textContent = "Copy";
  }, 2000);
};

// A link leads to its target, also to one that is filtered out or folded away.
const reveal = () => {
  const target = document.getElementById(location.hash.slice(1));
  if (!target) return;
  for (let node = target; node; node = node.parentElement)
    if (node.tagName === "DETAILS") node.open = true;
  if (target.hidden) target.closest("table").showAll();
  const layer = target.matches("tr") && target.querySelector("a.name");
  if (layer) {
    open(target);
    layer.focus({ preventScroll: true });
  }
  requestAnimationFrame(() => target.scrollIntoView());
};

for (const button of all("[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", () => copy(button));
}
startTables();
startMaps();
startLayers();
startTrends();
startSides();
addEventListener("hashchange", reveal);
addEventListener("click", (event) => {
  // A link to the address that the page has already sends no hashchange.
  const link = event.target.closest("a");
  if (link && location.hash && link.hash === location.hash && !event.defaultPrevented) reveal();
});
addEventListener("beforeprint", () => {
  for (const one of all("details")) one.open = true;
  for (const node of [...pending.keys()].slice(0, 500)) drawNow(node);
});
reveal();
