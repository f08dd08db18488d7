// Charts as SVG: axes, marks at 0 and 1, and a cursor that reads values by pointer or arrow keys.
const MEMBERS = ["gamma", "beta", "moving_mean", "moving_variance"];
const DISTRIBUTIONS = [...MEMBERS, "scale", "shift"];

// An axis: where a value lies between two ends, and which values have a label.
const axisOf = (low, high, logarithmic) => {
  let [start, end] = [low, high];
  if (low === high) {
    if (logarithmic) [start, end] = [low / 10, low * 10];
    else if (low === 0) [start, end] = [-1, 1];
    else [start, end] = [low - Math.abs(low), low + Math.abs(low)];
  }
  const change = logarithmic ? Math.log10 : (value) => value / 2;
  const [from, span] = [change(start), change(end) - change(start)];
  const share = (value) => Math.min(Math.max((change(value) - from) / span, 0), 1);
  const at = (part) => (logarithmic ? 10 ** (from + part * span) : 2 * (from + part * span));
  return { start, end, logarithmic, share, at, ticks: ticksOf(start, end, logarithmic) };
};

const ticksOf = (start, end, logarithmic) => {
  const ticks = [];
  if (logarithmic) {
    const [first, last] = [Math.ceil(Math.log10(start)), Math.floor(Math.log10(end))];
    const every = Math.max(Math.ceil((last - first) / 3), 1);
    for (let power = first; power <= last; power += every) ticks.push(10 ** power);
    if (ticks.length > 1) return ticks;
  }
  const rough = end / 3 - start / 3;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((part) => part * unit).find((size) => size >= rough);
  if (!step) return [start, end];
  const first = Math.ceil(start / step);
  for (let part = first; part * step <= end * (1 + 1e-12) && ticks.length < 9; part += 1)
    ticks.push(part * step);
  return ticks.length ? ticks : [start, end];
};

// 0 and 1, at which statistics start, are marked on every axis that reaches them.
const marksOf = (axis, others = []) =>
  [...new Set([0, 1, ...others])].filter(
    (value) =>
      value !== null &&
      value >= axis.start &&
      value <= axis.end &&
      (!axis.logarithmic || value > 0),
  );

// Labels that keep their distance: marks come before ticks.
const labelled = (axis, marks, distance) => {
  const kept = [];
  for (const value of [...marks, ...axis.ticks]) {
    if (kept.every((other) => Math.abs(axis.share(other) - axis.share(value)) > distance))
      kept.push(value);
  }
  return kept;
};

const chart = (width, height, label) =>
  shape("svg", {
    role: "img",
    tabindex: 0,
    "aria-label": label,
    viewBox: `0 0 ${width} ${height}`,
  });

// A cursor over `count` places: `where` returns [x, width] of one, `wordsAt` what it shows there.
const addCursor = (svg, frame, count, where, wordsAt, readout) => {
  const resting = readout.textContent;
  const mark = shape("rect", {
    class: "cursor",
    y: frame.top,
    height: frame.bottom - frame.top,
    width: 0,
  });
  svg.prepend(mark);
  let current = -1;
  const move = (index, spoken) => {
    current = index;
    const text = index < 0 ? resting : wordsAt(index);
    const [x, width] = index < 0 ? [0, 0] : where(index);
    mark.setAttribute("x", x);
    mark.setAttribute("width", width);
    readout.textContent = text;
    if (spoken) say(text);
  };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    let [nearest, least] = [-1, Infinity];
    for (let index = 0; index < count; index += 1) {
      const [left, width] = where(index);
      const distance = Math.abs(left + width / 2 - x);
      if (distance < least) [nearest, least] = [index, distance];
    }
    if (nearest !== current) move(nearest, false);
  });
  svg.addEventListener("pointerleave", () => move(-1, false));
  svg.addEventListener("blur", () => move(-1, false));
  svg.addEventListener("keydown", (event) => {
    const goal = {
      ArrowRight: Math.min(current + 1, count - 1),
      ArrowLeft: Math.max(current - 1, 0),
      Home: 0,
      End: count - 1,
    }[event.key];
    if (goal === undefined) return;
    event.preventDefault();
    move(goal, true);
  });
};

const captioned = (name, text, readout, svg) =>
  element(
    "figure",
    {},
    ...(svg ? [svg] : []),
    element("figcaption", {}, element("b", {}, name), ` ${text}`),
    readout,
  );

// A horizontal axis with its labels; marks are lines through the whole chart.
const addAxis = (svg, frame, axis, marks) => {
  const x = (value) => frame.left + axis.share(value) * (frame.right - frame.left);
  for (const value of marks) {
    svg.append(shape("path", { class: "mark", d: `M${x(value)} ${frame.top}V${frame.bottom}` }));
  }
  svg.append(shape("path", { class: "axis", d: `M${frame.left} ${frame.bottom}H${frame.right}` }));
  for (const value of labelled(axis, marks, 0.17)) {
    const share = axis.share(value);
    const anchor = share < 0.08 ? "start" : share > 0.92 ? "end" : "middle";
    svg.append(
      shape("path", { class: "axis", d: `M${x(value)} ${frame.bottom}v3` }),
      shape(
        "text",
        {
          x: x(value),
          y: frame.bottom + 13,
          "text-anchor": anchor,
          class: marks.includes(value) ? "strong" : "",
        },
        number(value),
      ),
    );
  }
  return x;
};

// A vertical axis with its labels at the left.
const addSide = (svg, frame, axis, marks) => {
  const y = (value) => frame.bottom - axis.share(value) * (frame.bottom - frame.top);
  for (const value of marks) {
    svg.append(shape("path", { class: "mark", d: `M${frame.left} ${y(value)}H${frame.right}` }));
  }
  for (const value of labelled(axis, marks, 0.2)) {
    svg.append(
      shape(
        "text",
        {
          x: frame.left - 4,
          y: y(value) + 3,
          "text-anchor": "end",
          class: marks.includes(value) ? "strong" : "",
        },
        number(value),
      ),
    );
  }
  svg.append(
    shape("path", {
      class: "axis",
      d: `M${frame.left} ${frame.top}V${frame.bottom}H${frame.right}`,
    }),
  );
  return y;
};

// Bins as the page has them: see `_bins` in data.py.
const binsOf = ([counts, low, high, logarithmic, initial, atInitial, spread, lost]) => ({
  counts,
  low,
  high,
  logarithmic: Boolean(logarithmic),
  initial,
  atInitial,
  spread,
  lost,
});

const wordsOn = (bins) => {
  const parts = [bins.logarithmic ? "log axis" : ""];
  if (bins.atInitial) parts.push(`${bins.atInitial} at the initial value ${number(bins.initial)}`);
  else if (bins.initial !== null && bins.initial < bins.low)
    parts.push(`the initial value ${number(bins.initial)} lies left`);
  else if (bins.initial !== null && bins.initial > bins.high)
    parts.push(`the initial value ${number(bins.initial)} lies right`);
  if (bins.lost) parts.push(`${bins.lost} not finite`);
  return parts.filter(Boolean).join("; ");
};

// The histogram of one member; `shared` is an axis that it has in common with another.
const histogram = (name, record, shared = null, size = [240, 112]) => {
  const readout = element("p", { class: "readout" });
  if (typeof record === "string") return captioned(name, record, readout, null);
  const bins = binsOf(record);
  const axis = shared ?? axisOf(bins.low, bins.high, bins.logarithmic);
  const own = axisOf(bins.low, bins.high, bins.logarithmic);
  const channels = bins.counts.reduce((sum, count) => sum + count, 0);
  readout.textContent = wordsOn(bins);
  const svg = chart(
    ...size,
    `${name}: ${plural(channels, "channel")}, ${bins.spread}; ${readout.textContent}`,
  );
  const frame = { left: 30, right: size[0] - 6, top: 6, bottom: size[1] - 18 };
  const x = addAxis(svg, frame, axis, marksOf(axis, [bins.initial]));
  const most = Math.max(...bins.counts);
  const height = (count) => (count ? Math.max((count / most) * (frame.bottom - frame.top), 2) : 0);
  const edges = (index) =>
    bins.low === bins.high
      ? [bins.low, bins.low]
      : [own.at(index / bins.counts.length), own.at((index + 1) / bins.counts.length)];
  const where = (index) => {
    const [left, right] = edges(index).map(x);
    const width = bins.low === bins.high ? 9 : Math.max(right - left - 0.5, 0.5);
    return [bins.low === bins.high ? left - 4.5 : left, width];
  };
  const bar = (index, count) => {
    const [left, width] = where(index);
    return `M${left} ${frame.bottom}v-${height(count)}h${width}V${frame.bottom}z`;
  };
  const taken = bins.counts
    .map((count, index) => (count ? index : -1))
    .filter((index) => index >= 0);
  svg.append(
    shape("path", {
      class: "bar",
      d: taken.map((index) => bar(index, bins.counts[index])).join(""),
    }),
  );
  if (bins.atInitial) {
    const share = bins.low === bins.high ? 0.5 : own.share(bins.initial);
    const index = Math.min(Math.floor(share * bins.counts.length), bins.counts.length - 1);
    svg.append(shape("path", { class: "stuck", d: bar(index, bins.atInitial) }));
  }
  svg.append(
    shape("text", { x: frame.left - 4, y: frame.top + 8, "text-anchor": "end" }, String(most)),
    shape("text", { x: frame.left - 4, y: frame.bottom, "text-anchor": "end" }, "0"),
  );
  const wordsAt = (place) => {
    const [from, to] = edges(taken[place]);
    const range = from === to ? number(from) : `${number(from)} to ${number(to)}`;
    return `${range}: ${plural(bins.counts[taken[place]], "channel")}`;
  };
  addCursor(svg, frame, taken.length, (place) => where(taken[place]), wordsAt, readout);
  return captioned(name, bins.spread, readout, svg);
};

// A line with gaps: null ends a run, and a run of one point is a dot.
const lineOf = (xs, ys) => {
  let [path, open] = ["", false];
  xs.forEach((x, index) => {
    if (ys[index] === null) open = false;
    else {
      path += `${open ? "L" : "M"}${x} ${ys[index]}`;
      if (!open && (ys[index + 1] ?? null) === null) path += "h0.1";
      open = true;
    }
  });
  return path;
};

// The trend of one statistic: the mean of the channels in their range, over checkpoints.
const trend = (name, [at, means, lows, highs, still, description], time, text) => {
  const size = [250, 96];
  const frame = { left: 44, right: size[0] - 8, top: 6, bottom: size[1] - 20 };
  const readout = element("p", { class: "readout" }, text);
  const svg = chart(...size, `${name}. ${description}`);
  const values = [...means, ...lows, ...highs].filter((value) => value !== null);
  if (!values.length) return captioned("", "", readout, null);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const axis = axisOf(low, high, name === "moving_variance" && low > 0);
  const y = addSide(svg, frame, axis, marksOf(axis));
  const along = axisOf(time.at[0], time.at.at(-1), false);
  const x = (place) =>
    frame.left + 4 + along.share(time.at[place]) * (frame.right - frame.left - 8);
  const xs = at.map(x);
  const line = (numbers) =>
    lineOf(
      xs,
      numbers.map((value) => (value === null ? null : y(value))),
    );
  let band = "";
  at.forEach((_, index) => {
    const next = index + 1;
    if (next < at.length && [lows[index], lows[next]].every((value) => value !== null)) {
      band += `M${xs[index]} ${y(lows[index])}V${y(highs[index])}L${xs[next]} ${y(highs[next])}V${y(lows[next])}z`;
    }
  });
  svg.append(
    shape("path", { class: "band", d: band }),
    shape("path", { class: "line", d: line(means) }),
  );
  if (at.length <= 40) {
    const dots = xs.map((each, index) =>
      means[index] === null ? "" : `M${each} ${y(means[index])}h0`,
    );
    svg.append(shape("path", { class: "dots", d: dots.join("") }));
  }
  svg.append(
    shape("path", {
      class: "still",
      d: still.map(([from, to]) => `M${x(from)} ${frame.bottom + 3}H${x(to)}`).join(""),
    }),
  );
  for (const [place, anchor] of [
    [0, "start"],
    [time.at.length - 1, "end"],
  ]) {
    const label = time.labels[place];
    svg.append(
      shape(
        "text",
        { x: x(place), y: size[1] - 4, "text-anchor": anchor },
        label.length > 18 ? `…${label.slice(-17)}` : label,
      ),
    );
  }
  const wordsAt = (index) => {
    const stood = still.some(([from, to]) => at[index] > from && at[index] <= to)
      ? ", no channel moved"
      : "";
    const range =
      lows[index] === null ? "" : `, channels ${number(lows[index])} to ${number(highs[index])}`;
    const mean =
      means[index] === null ? "not finite or not stored" : `mean ${number(means[index])}`;
    return `${time.labels[at[index]]}: ${mean}${range}${stood}`;
  };
  addCursor(svg, frame, at.length, (index) => [xs[index] - 1, 2], wordsAt, readout);
  const figure = captioned("", "", readout, svg);
  figure.querySelector("figcaption").remove();
  return figure;
};

// The values of one member by channel.
const channelChart = (name, values, wordsAt, isStuck) => {
  const size = [720, 170];
  const frame = { left: 48, right: size[0] - 8, top: 8, bottom: size[1] - 20 };
  const red = values.some(isStuck) ? "; those at the initial value are red" : "";
  const readout = element("p", { class: "readout" }, plural(values.length, "channel") + red);
  const finite = values.filter(Number.isFinite);
  if (!finite.length) return captioned(name, "no finite value", readout, null);
  const low = finite.reduce((a, b) => Math.min(a, b));
  const high = finite.reduce((a, b) => Math.max(a, b));
  const axis = axisOf(low, high, name === "moving_variance" && low > 0);
  const svg = chart(...size, `${name} by channel: ${number(low)} to ${number(high)}`);
  const y = addSide(svg, frame, axis, marksOf(axis));
  const x = (index) =>
    frame.left + 6 + (index / Math.max(values.length - 1, 1)) * (frame.right - frame.left - 12);
  const dots = (stuck) =>
    Array.from(values, (value, index) =>
      Number.isFinite(value) && isStuck(value) === stuck
        ? `M${x(index).toFixed(1)} ${y(value).toFixed(1)}h0`
        : "",
    ).join("");
  svg.append(
    shape("path", { class: "dots", d: dots(false) }),
    shape("path", { class: "dots stuck", d: dots(true) }),
    shape("text", { x: x(0), y: size[1] - 4 }, "channel 0"),
    shape(
      "text",
      { x: x(values.length - 1), y: size[1] - 4, "text-anchor": "end" },
      values.length > 1 ? `channel ${values.length - 1}` : "",
    ),
  );
  addCursor(svg, frame, values.length, (index) => [x(index) - 1, 2], wordsAt, readout);
  return captioned(
    name,
    axis.logarithmic ? "by channel, logarithmic axis" : "by channel",
    readout,
    svg,
  );
};
