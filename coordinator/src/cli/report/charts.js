// Throughput and durations; then what the mouse and the keys do.
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
  const perSecond = 1e6 / step, ceiling = Math.max(most * perSecond, 1e-9);
  const unit = round(ceiling / 3);
  g.textAlign = "right";
  for (let v = 0; v <= ceiling * 1.001; v += unit) {
    const y = bottom - v / ceiling * tall;
    g.fillStyle = ink.line;
    g.fillRect(gutter, Math.round(y), plot, 1);
    g.fillStyle = ink.soft;
    if (v > 0) g.fillText(short(v), gutter - 8, y);
  }
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

function breaksOnly(g, height) {
  g.fillStyle = ink.faint;
  for (let r = 0; r + 1 < data.runs.length; r++) {
    const a = toX(data.runs[r].from + data.runs[r].length), b = toX(data.runs[r + 1].from);
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
  g.textAlign = "right";
  for (let v = 0; v <= most; v += unit) {
    const y = bottom - v / most * tall;
    g.fillStyle = ink.line;
    g.fillRect(gutter, Math.round(y), wide, 1);
    g.fillStyle = ink.soft;
    if (v > 0) g.fillText(short(v), gutter - 8, y);
  }
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
  $("range").textContent = zoomed() ? `${span(view.to - view.from)} of ${span(end)}` : "";
  $("reset").disabled = $("out").disabled = !zoomed();
}
function redraw() {
  readColours();
  draw();
  drawHistogram();
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
  if (strip && data.runs.length <= 8) data.runs.forEach((run, r) => {
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
  for (const id of ["rate", "histogram"]) $(id).addEventListener("pointerleave", () => tell());

  // The legend shows one outcome alone, and all again.
  const items = [...$("legend").children];
  for (const item of items) {
    const number = data.names.indexOf(item.dataset.status);
    item.setAttribute("role", "button");
    item.tabIndex = 0;
    const press = () => {
      only = only === number ? -1 : number;
      for (const other of items) {
        const pressed = only >= 0 && data.names[only] === other.dataset.status;
        other.setAttribute("aria-pressed", pressed);
        other.classList.toggle("dim", only >= 0 && !pressed);
      }
      redraw();
    };
    item.title = "Show only these";
    item.addEventListener("click", press);
    item.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); press(); }
    });
  }

  // From a table's row to its bar.
  for (const row of document.querySelectorAll("tr[data-bar]")) {
    row.title = "Show in the timeline";
    row.addEventListener("click", () => {
      if (String(getSelection())) return;
      const k = +row.dataset.bar, around = Math.max((ends[k] - starts[k]) * 2, 100);
      canvas.scrollIntoView({ block: "center" });
      canvas.parentElement.scrollTop = data.row[k] * rowHeight - canvas.parentElement.clientHeight / 2;
      zoomTo(starts[k] - around, ends[k] + around);
    });
  }
  addEventListener("resize", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}

try {
  $("charts").hidden = false;
  redraw();
  listen();
  document.body.dataset.drawn = total;
} catch (error) {
  const trouble = $("trouble");
  trouble.hidden = false;
  trouble.textContent = `The charts can't be drawn: ${error}`;
}
