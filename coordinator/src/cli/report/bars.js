// The timeline: a row for each worker, a bar for each attempt.
// Names of machines need more room than numbers.
const longest = Math.max(0, ...data.workers.map((label) => label.length));
const gutter = Math.min(48 + 7 * Math.max(longest - 4, 0), 160), right = 6;
const strip = runs.length > 1 ? 22 : 0;
// No canvas may be higher than some 32,000 pixels of the screen.
const rowHeight = Math.max(rows.length > 1500 ? 2 : 5, Math.min(26, Math.floor(520 / rows.length)));
// Around a bar, and around one that succeeded.
const margin = rowHeight < 5 ? 0 : 0.5, lower = rowHeight < 5 ? 0 : rowHeight * 0.14;
let plot = 1;

const toX = (time) => gutter + (time - view.from) / (view.to - view.from) * plot;
const toTime = (x) => view.from + (x - gutter) / plot * (view.to - view.from);

function drawBars() {
  const { g, width, height, ratio } = paper("bars", strip + rows.length * rowHeight + 1);
  plot = width - gutter - right;
  const every = Math.ceil(14 / rowHeight);
  rows.forEach((row, r) => {
    const y = strip + r * rowHeight;
    if (r % 2 === 0) { g.fillStyle = ink.faint; g.fillRect(gutter, y, plot, rowHeight); }
    if (r % every === 0) {
      g.fillStyle = ink.soft;
      g.textAlign = "right";
      g.fillText(data.workers[r] || "–", gutter - 8, y + Math.max(rowHeight, every > 1 ? 10 : 0) / 2);
    }
  });
  drawBreaks(g, height);
  g.save();
  g.beginPath();
  g.rect(gutter, 0, plot, height);
  g.clip();
  const columns = Math.ceil(plot * ratio) + 1;
  const heaviest = new Int32Array(columns), cover = new Float32Array(columns);
  rows.forEach((row, r) => drawRow(g, row, strip + r * rowHeight, ratio, heaviest, cover));
  drawMark(g);
  g.restore();
}

// Around the bar that a table has led to.
function drawMark(g) {
  if (marked < 0) return;
  const a = toX(starts[marked]), b = Math.max(toX(ends[marked]), a + 2);
  const y = strip + data.row[marked] * rowHeight;
  g.strokeStyle = ink.accent;
  g.lineWidth = 3;
  g.strokeRect(a - 2, y + 0.5, b - a + 4, rowHeight - 1);
}

// Between two runs, and their names above.
function drawBreaks(g, height) {
  if (!strip) return;
  g.textAlign = "left";
  runs.forEach((run, r) => {
    const from = Math.max(toX(run.from), gutter), to = Math.min(toX(run.from + run.length), gutter + plot);
    if (to > from + 46) {
      const name = `run ${r + 1}`, full = `${name} · ${run.date} UTC`;
      g.fillStyle = ink.soft;
      g.fillText(g.measureText(full).width < to - from - 10 ? full : name, from + 4, strip / 2);
    }
    const next = runs[r + 1];
    if (!next) return;
    const a = Math.max(toX(run.from + run.length), gutter), b = Math.min(toX(next.from), gutter + plot);
    if (b <= a) return;
    g.save();
    g.beginPath();
    g.rect(a, 0, b - a, height);
    g.clip();
    g.fillStyle = ink.card;
    g.fillRect(a, 0, b - a, height);
    g.strokeStyle = ink.line;
    g.lineWidth = 1.5;
    g.beginPath();
    for (let x = a - height; x < b; x += 7) { g.moveTo(x, height); g.lineTo(x + height, 0); }
    g.stroke();
    const pause = (next.start - run.start) * 1e6 - run.length;
    const words = pause > 0 ? `${span(pause)} later` : "";
    if (words && height > g.measureText(words).width + 16 && b - a > 16) {
      g.translate((a + b) / 2, height / 2);
      g.rotate(-Math.PI / 2);
      g.textAlign = "center";
      const half = g.measureText(words).width / 2 + 6;
      g.fillStyle = ink.card;
      g.fillRect(-half, -8, 2 * half, 16);
      g.fillStyle = ink.soft;
      g.fillText(words, 0, 0);
    }
    g.restore();
  });
}

// Attempts too short for a bar of their own share their pixel: the heaviest of them gives it its
// colour, so that no failure disappears among successes, and how busy it was its strength.
function drawRow(g, row, y, ratio, heaviest, cover) {
  heaviest.fill(-1);
  cover.fill(0);
  const scale = plot * ratio / (view.to - view.from), last = heaviest.length - 1;
  const bars = [];
  for (const k of row) {
    if (ends[k] < view.from || starts[k] > view.to || !shown(k)) continue;
    const a = (starts[k] - view.from) * scale, b = (ends[k] - view.from) * scale;
    if (b - a >= 3 * ratio) { bars.push(k); continue; }
    const first = Math.max(0, Math.floor(a)), to = Math.min(last, Math.max(first, Math.ceil(b) - 1));
    for (let c = first; c <= to; c++) {
      const was = heaviest[c];
      if (was < 0 || weight[status[k]] > weight[was]) heaviest[c] = status[k];
      cover[c] += Math.max(0, Math.min(b, c + 1) - Math.max(a, c));
    }
  }
  const px = 1 / ratio;
  const style = (c) => heaviest[c] < 0 ? -1
    : heaviest[c] === 0 ? Math.min(4, Math.floor(cover[c] * 4.2)) : 8 + heaviest[c];
  for (const failures of [false, true]) {
    for (let c = 0; c <= last;) {
      const now = style(c), from = c;
      while (c <= last && style(c) === now) c++;
      if (now < 0 || (now > 8) !== failures) continue;
      g.fillStyle = colours[failures ? now - 8 : 0];
      g.globalAlpha = failures ? 1 : 0.45 + 0.55 * now / 4;
      const inset = failures ? 0 : lower;
      const wide = failures ? Math.max(2, (c - from) * px) : (c - from) * px;
      g.fillRect(gutter + from * px, y + inset + margin, wide, rowHeight - 2 * (margin + inset));
    }
    g.globalAlpha = 1;
    if (!failures) for (const k of bars) drawBar(g, k, y);
  }
}

function drawBar(g, k, y) {
  const a = Math.max(toX(starts[k]), gutter - 4), b = Math.min(toX(ends[k]), gutter + plot + 4);
  // A little lower if all is well: colour alone tells not everyone.
  const inset = status[k] === 0 ? lower : 0;
  const top = y + inset + margin, tall = rowHeight - 2 * (margin + inset), wide = b - a > 6 ? b - a - 1 : b - a;
  g.fillStyle = colours[status[k]];
  g.fillRect(a, top, wide, tall);
  if (again[k] && wide > 5) {
    g.save();
    g.beginPath();
    g.rect(a, top, wide, tall);
    g.clip();
    g.strokeStyle = ink.card;
    g.globalAlpha = 0.45;
    g.lineWidth = 1.5;
    g.beginPath();
    for (let x = a - tall; x < b; x += 6) { g.moveTo(x, top + tall); g.lineTo(x + tall, top); }
    g.stroke();
    g.restore();
  }
  if (wide > 44 && tall >= 13) {
    g.save();
    g.beginPath();
    g.rect(a, top, wide - 3, tall);
    g.clip();
    g.fillStyle = onTop(colours[status[k]]);
    g.textAlign = "left";
    g.fillText(data.inputs[data.input[k]].slice(0, 80), Math.max(a, gutter) + 5, top + tall / 2 + 0.5);
    g.restore();
  }
}

// Black or white, whichever can be read on this colour.
function onTop(colour) {
  const part = (at) => (parseInt(colour.slice(at, at + 2), 16) / 255) ** 2.2;
  return 0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5) > 0.2 ? "#000" : "#fff";
}

// Each run's time starts at 0.
function drawAxis() {
  const { g, width } = paper("axis", 24);
  const step = roundTime((view.to - view.from) / Math.max(2, width / 110));
  g.fillStyle = ink.soft;
  g.strokeStyle = ink.line;
  let free = gutter - 30;
  runs.forEach((run) => {
    const first = Math.max(0, Math.ceil((view.from - run.from) / step));
    for (let n = first, left = 200; n * step <= run.length && left > 0; n++, left--) {
      const x = toX(run.from + n * step), text = tick(n * step, step), half = g.measureText(text).width / 2;
      if (x > gutter + plot + 1) break;
      g.fillStyle = ink.line;
      g.fillRect(x, 0, 1, 5);
      if (x - half < free + 8 || x + half > width) continue;
      free = x + half;
      g.fillStyle = ink.soft;
      g.textAlign = "center";
      g.fillText(text, x, 14);
    }
  });
}

// What is under the mouse: the heaviest, and how many more are there.
function find(x, y) {
  const row = rows[Math.floor((y - strip) / rowHeight)];
  if (!row || y < strip || x < gutter) return null;
  const from = toTime(x - 2.5), to = toTime(x + 2.5);
  let best = -1, others = -1;
  for (const k of row) {
    if (ends[k] < from || starts[k] > to || !shown(k)) continue;
    others++;
    if (best < 0 || weight[status[k]] > weight[status[best]]) best = k;
  }
  return best < 0 ? null : { k: best, others };
}

function runOf(k) {
  let r = runs.length - 1;
  while (r > 0 && runs[r].from > starts[k]) r--;
  return r;
}

function tellOf(event, k, others) {
  const r = runOf(k), at = span(Math.max(0, starts[k] - runs[r].from));
  const call = data.seq[k] < 0 ? "" : `call ${data.seq[k]}, `;
  tell(event, data.inputs[data.input[k]] || "(no input)", [
    `${labels[status[k]]}${again[k] ? ", tried again" : ""} after ${span(ends[k] - starts[k])}`,
    data.reasons[data.reason[k]],
    `${call}attempt ${data.attempt[k]}, worker ${data.workers[data.row[k]] || "–"}`,
    `started ${at} into ${runs.length > 1 ? `run ${r + 1}` : "the run"}`,
    others ? `and ${count(others)} more here: zoom in` : "",
  ]);
}
