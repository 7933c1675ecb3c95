// Throughput, how many ran at once, and durations; then what the mouse and the keys do.
let bins = { width: 1, ok: [], bad: [], first: 0 };

function drawRate() {
  const { g, width, height } = paper("rate", 110);
  const top = 14, bottom = height - 6, tall = bottom - top;
  let inView = 0;
  for (let k = 0; k < total; k++) if (ends[k] >= view.from && ends[k] <= view.to && shown(k)) inView++;
  // With few attempts, narrow bins would hold one or none.
  const many = Math.max(8, Math.min(plot / 5, inView / 3));
  const step = roundTime((view.to - view.from) / many);
  const first = Math.floor(view.from / step), size = Math.ceil(view.to / step) - first + 1;
  const ok = new Float64Array(size), bad = new Float64Array(size);
  for (let k = 0; k < total; k++) {
    const bin = Math.floor(ends[k] / step) - first;
    if (bin >= 0 && bin < size && shown(k)) (status[k] === 0 ? ok : bad)[bin] += counts[k];
  }
  bins = { step, ok, bad, first };
  let most = 0;
  for (let b = 0; b < size; b++) most = Math.max(most, ok[b] + bad[b]);
  if (!most) return nothing(g, width, height, "No attempt ended here");
  const perSecond = 1e6 / step, ceiling = most * perSecond;
  const unit = round(ceiling / 3);
  lines(g, ceiling, unit, { bottom, tall, wide: plot });
  g.save();
  g.beginPath();
  g.rect(gutter, 0, plot, height);
  g.clip();
  breaksOnly(g, height);
  for (let b = 0; b < size; b++) {
    const x = toX((first + b) * step), wide = Math.max(1, toX((first + b + 1) * step) - x - 1);
    const good = ok[b] * perSecond / ceiling * tall;
    const ill = bad[b] ? Math.max(2, bad[b] * perSecond / ceiling * tall) : 0;
    g.fillStyle = colours[0];
    g.fillRect(x, bottom - good, wide, good);
    g.fillStyle = colours[only > 0 ? only : 1];
    g.fillRect(x, bottom - good - ill, wide, ill);
  }
  g.restore();
}

// Horizontal lines up to the highest value, with a number at each.
function lines(g, highest, unit, { bottom, tall, wide }) {
  g.textAlign = "right";
  for (let v = 0; v <= highest * 1.001; v += unit) {
    const y = bottom - v / highest * tall;
    g.fillStyle = ink.line;
    g.fillRect(gutter, Math.round(y), wide, 1);
    g.fillStyle = ink.soft;
    if (v > 0) g.fillText(short(v), gutter - 8, y);
  }
}

// What a chart says where it has nothing to show.
function nothing(g, width, height, words) {
  g.fillStyle = ink.soft;
  g.textAlign = "center";
  g.fillText(words, (gutter + width - right) / 2, height / 2);
}

// How many attempts run at each moment at which that changes: times, and numbers from there on.
let atOnce = { only: -2, times: [], numbers: [] };
function countAtOnce() {
  if (atOnce.only === only) return;
  const changes = [];
  for (const row of rows) row.forEach((k, at) => {
    if (!shown(k)) return;
    // A worker has one attempt at a time. Its times in the log may overlap by microseconds.
    const until = at + 1 < row.length ? Math.min(ends[k], starts[row[at + 1]]) : ends[k];
    changes.push([starts[k], counts[k]], [until, -counts[k]]);
  });
  // Where one ends and another begins at the same time, the end comes first.
  changes.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const times = [], numbers = [];
  let now = 0;
  for (const [time, by] of changes) {
    now += by;
    if (times.length && times[times.length - 1] === time) numbers[numbers.length - 1] = now;
    else { times.push(time); numbers.push(now); }
  }
  atOnce = { only, times, numbers };
}
// The last change at or before a time; -1 if there is none.
function changeAt(time) {
  let low = 0, high = atOnce.times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (atOnce.times[middle] <= time) low = middle + 1; else high = middle;
  }
  return low - 1;
}

function drawAtOnce() {
  const { g, width, height } = paper("atonce", 90);
  const top = 14, bottom = height - 6, tall = bottom - top;
  countAtOnce();
  const { times, numbers } = atOnce, most = numbers.reduce((a, b) => Math.max(a, b), 0);
  if (!most) return nothing(g, width, height, "No attempt ran");
  const unit = Math.max(1, round(most / 3));
  lines(g, most, unit, { bottom, tall, wide: plot });
  g.save();
  g.beginPath();
  g.rect(gutter, 0, plot, height);
  g.clip();
  breaksOnly(g, height);
  g.fillStyle = colours[0];
  g.globalAlpha = 0.7;
  // The most in each pixel: a moment's peak must not disappear.
  let change = changeAt(view.from);
  for (let x = 0; x < plot; x++) {
    let peak = change < 0 ? 0 : numbers[change];
    const until = toTime(gutter + x + 1);
    while (change + 1 < times.length && times[change + 1] <= until) peak = Math.max(peak, numbers[++change]);
    const y = peak / most * tall;
    g.fillRect(gutter + x, bottom - y, 1, y);
  }
  g.restore();
}

function breaksOnly(g, height) {
  g.fillStyle = ink.faint;
  for (let r = 0; r + 1 < runs.length; r++) {
    const a = toX(runs[r].from + runs[r].length), b = toX(runs[r + 1].from);
    g.fillRect(a, 0, b - a, height);
  }
}

function short(v) {
  if (v >= 1e6) return +(v / 1e6).toPrecision(3) + "M";
  if (v >= 1e4) return +(v / 1e3).toPrecision(3) + "k";
  return String(+v.toPrecision(3));
}

// In steps of a fifth or a tenth of a power of ten.
let pillars = { step: 1, first: 0, by: [] };
function drawHistogram() {
  const { g, width, height } = paper("histogram", 170);
  const top = 10, bottom = height - 24, tall = bottom - top, wide = width - gutter - right;
  const logs = new Float64Array(total);
  let low = Infinity, high = -Infinity;
  for (let k = 0; k < total; k++) {
    logs[k] = Math.log10(Math.max(1, ends[k] - starts[k]));
    low = Math.min(low, logs[k]);
    high = Math.max(high, logs[k]);
  }
  const step = high - low > 3 || total < 200 ? 0.1 : 0.05;
  let first = Math.floor(low / step + 1e-9) - 2, size = Math.floor(high / step + 1e-9) - first + 3;
  // A single pillar as wide as the page would look like an error.
  if (size < 24) { first -= Math.floor((24 - size) / 2); size = 24; }
  const by = Array.from({ length: size }, () => new Float64Array(data.names.length));
  for (let k = 0; k < total; k++) if (shown(k)) by[Math.floor(logs[k] / step + 1e-9) - first][status[k]] += counts[k];
  const most = Math.max(1, ...by.map((pillar) => pillar.reduce((a, b) => a + b, 0)));
  pillars = { step, first, by, wide };
  const at = (log) => gutter + (log / step - first) / size * wide;
  const unit = Math.max(1, round(most / 4));
  lines(g, most, unit, { bottom, tall, wide });
  const order = labels.map((_, s) => s);
  by.forEach((pillar, p) => {
    const x = gutter + p / size * wide;
    let y = bottom;
    for (const s of order) {
      if (!pillar[s]) continue;
      const h = Math.max(2, pillar[s] / most * tall);
      g.fillStyle = colours[s];
      g.fillRect(x + 0.5, y - h, Math.max(1, wide / size - 1.5), h);
      y -= h;
    }
  });
  g.textAlign = "center";
  let free = 0;
  for (let power = Math.floor(first * step); power <= (first + size) * step; power++) {
    for (const digit of [1, 2, 5]) {
      const log = power + Math.log10(digit), x = at(log);
      if (x < gutter || x > gutter + wide) continue;
      g.fillStyle = ink.line;
      g.fillRect(x, bottom, 1, 5);
      const us = digit * 10 ** power, text = us < 1e3 ? us + " µs" : us < 1e6 ? us / 1e3 + " ms"
        : us < 60e6 ? us / 1e6 + " s" : span(us);
      const half = g.measureText(text).width / 2;
      if (x - half < free + 10 || x + half > width) continue;
      free = x + half;
      g.fillStyle = ink.soft;
      g.fillText(text, x, bottom + 14);
    }
  }
}

function draw() {
  drawBars();
  drawAxis();
  drawRate();
  drawAtOnce();
  $("range").textContent = zoomed() ? `${span(view.to - view.from)} of ${span(end)}` : "";
  $("reset").disabled = $("out").disabled = !zoomed();
}
function redraw() {
  readColours();
  draw();
  drawHistogram();
}

// Shows one outcome alone, or with -1 all.
function press(number) {
  only = number;
  for (const item of $("legend").children) {
    const pressed = only >= 0 && data.names[only] === item.dataset.status;
    item.setAttribute("aria-pressed", pressed);
    item.classList.toggle("dim", only >= 0 && !pressed);
  }
  redraw();
  for (const table of tables) table.fill();
}

function listen() {
  const canvas = $("bars");
  let drag = null;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.addEventListener("wheel", (event) => {
    // Wholly zoomed out, the wheel is the page's.
    if (event.deltaY > 0 && !zoomed() && !event.deltaX) return;
    event.preventDefault();
    tell();
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      const by = event.deltaX / plot * (view.to - view.from);
      zoomTo(view.from + by, view.to + by);
    } else {
      zoomAt(toTime(Math.max(gutter, place(event)[0])), Math.exp(Math.max(-1, Math.min(1, event.deltaY * 0.0025))));
    }
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.pointerType === "touch") return;
    drag = place(event)[0];
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = place(event);
    if (drag === null) {
      const found = find(x, y);
      if (found) tellOf(event, found.k, found.others); else tell();
      return;
    }
    tell();
    const mark = $("select"), a = Math.max(gutter, Math.min(drag, x)), b = Math.min(gutter + plot, Math.max(drag, x));
    mark.hidden = b - a < 4;
    mark.style.left = a + "px";
    mark.style.width = Math.max(0, b - a) + "px";
  });
  const drop = (event) => {
    if (drag === null) return;
    const x = place(event)[0], a = Math.max(gutter, Math.min(drag, x)), b = Math.max(drag, x);
    drag = null;
    $("select").hidden = true;
    if (event.type === "pointerup" && b - a >= 4) zoomTo(toTime(a), toTime(b));
  };
  canvas.addEventListener("pointerup", drop);
  canvas.addEventListener("pointercancel", drop);
  canvas.addEventListener("pointerleave", () => tell());
  canvas.addEventListener("dblclick", () => zoomTo(whole.from, whole.to));
  const middle = () => (view.from + view.to) / 2;
  const keys = {
    "+": () => zoomAt(middle(), 0.5), "=": () => zoomAt(middle(), 0.5), "-": () => zoomAt(middle(), 2),
    "0": () => zoomTo(whole.from, whole.to), Escape: () => zoomTo(whole.from, whole.to),
    ArrowLeft: () => pan(-0.2), ArrowRight: () => pan(0.2),
  };
  const pan = (part) => {
    const by = part * (view.to - view.from);
    zoomTo(view.from + by, view.to + by);
  };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  $("in").onclick = keys["+"];
  $("out").onclick = keys["-"];
  $("reset").onclick = keys["0"];
  if (strip && runs.length <= 8) runs.forEach((run, r) => {
    const button = document.createElement("button");
    button.textContent = `Run ${r + 1}`;
    button.onclick = () => zoomTo(run.from - run.length * 0.01, run.from + run.length * 1.01);
    $("tools").append(button);
  });

  $("rate").addEventListener("pointermove", (event) => {
    const x = event.clientX - $("rate").getBoundingClientRect().left;
    const bin = Math.floor(toTime(x) / bins.step) - bins.first;
    const ok = bins.ok[bin], bad = bins.bad[bin];
    if (x < gutter || !(ok + bad > 0)) return tell();
    tell(event, `${short((ok + bad) * 1e6 / bins.step)} a second`,
      [`${count(ok)} ok, ${count(bad)} not, in ${span(bins.step)}`]);
  });
  $("histogram").addEventListener("pointermove", (event) => {
    const x = event.clientX - $("histogram").getBoundingClientRect().left - gutter;
    const p = Math.floor(x / pillars.wide * pillars.by.length), pillar = pillars.by[p];
    if (!pillar || !pillar.some((n) => n)) return tell();
    const edge = (q) => span(10 ** ((pillars.first + q) * pillars.step));
    tell(event, `${edge(p)} to ${edge(p + 1)}`,
      [...pillar].map((n, s) => n ? `${count(n)} ${labels[s]}` : ""));
  });
  $("atonce").addEventListener("pointermove", (event) => {
    const time = toTime(event.clientX - $("atonce").getBoundingClientRect().left);
    const change = changeAt(time);
    if (change < 0 || time < view.from) return tell();
    tell(event, `${count(Math.round(atOnce.numbers[change]))} at once`, []);
  });
  for (const id of ["rate", "atonce", "histogram"]) $(id).addEventListener("pointerleave", () => tell());

  // The legend shows one outcome alone, and all again.
  for (const item of $("legend").children) {
    const number = data.names.indexOf(item.dataset.status);
    item.setAttribute("role", "button");
    item.setAttribute("aria-pressed", "false");
    item.tabIndex = 0;
    const turn = () => press(only === number ? -1 : number);
    item.title = "Show only these";
    item.addEventListener("click", turn);
    item.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); turn(); }
    });
  }
  addEventListener("resize", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}

try {
  $("charts").hidden = false;
  redraw();
  listen();
  makeTables();
  openByHash();
  addEventListener("hashchange", openByHash);
  drawn = true;
  document.body.dataset.drawn = total;
} catch (error) {
  const trouble = $("trouble");
  trouble.hidden = false;
  trouble.textContent = `The charts can't be drawn: ${error}`;
}
