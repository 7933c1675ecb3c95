// The data, in columns; times are in microseconds from the timeline's beginning.
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
// Attempts with a bar come first; behind them stand failed ones that never ran.
const total = data.length.length, attempts = data.status.length;
const starts = new Float64Array(total), ends = new Float64Array(total);
const status = new Uint8Array(attempts), again = new Uint8Array(attempts);
let soFar = 0;
for (let k = 0; k < total; k++) {
  soFar += data.start[k];
  starts[k] = soFar;
  ends[k] = soFar + data.length[k];
}
for (let k = 0; k < attempts; k++) {
  const code = data.status.charCodeAt(k);
  again[k] = code < 97 ? 1 : 0;
  status[k] = code - (again[k] ? 65 : 97);
}
// For how many attempts each bar stands where they are counted.
const counts = new Float64Array(total).fill(data.step || 1);
if (data.besides) for (let k = 0; k < total; k++) if (data.besides[k] === "1") counts[k] = 0;
// The runs that have a time. Those without come behind them.
const runs = data.runs.filter((run) => run.start !== undefined);
const rows = data.workers.map(() => []);
for (let k = 0; k < total; k++) rows[data.row[k]].push(k);

// What is shown where there is room for one thing only: an outcome that needs attention before one
// that does not. By the numbers of the outcomes.
const weight = [0, 6, 7, 8, 5, 9, 1, 4, 3];
const labels = data.labels;

// Whether the charts and tables are there.
let drawn = false;

let colours, ink;
function readColours() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue("--" + name).trim();
  colours = data.names.map(of);
  ink = { text: of("text"), soft: of("soft"), line: of("line"), faint: of("faint"), card: of("card"), accent: of("accent") };
}

// What the legend has been asked for; -1 is everything.
let only = -1;
// The attempt whose bar is marked; -1 is none.
let marked = -1;
const shown = (k) => only < 0 || status[k] === only;

// What is seen of the timeline.
const end = Math.max(data.end, 1);
const whole = { from: -end * 0.004, to: end * 1.004 };
const view = { ...whole };

function zoomTo(from, to) {
  const least = 20, most = whole.to - whole.from;
  const span = Math.min(Math.max(to - from, least), most);
  from = Math.min(Math.max((from + to - span) / 2, whole.from), whole.to - span);
  view.from = from;
  view.to = from + span;
  later();
}
function zoomAt(time, factor) {
  zoomTo(time - (time - view.from) * factor, time + (view.to - time) * factor);
}
function zoomed() {
  return view.to - view.from < (whole.to - whole.from) * 0.9999;
}

let waiting = false;
function later() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); });
}

// Numbers for people.
function span(us) {
  const ms = us / 1e3, s = us / 1e6;
  const digits = (x) => x.toFixed(x < 10 ? 2 : x < 100 ? 1 : 0);
  if (ms < 1) return us.toFixed(0) + " µs";
  if (s < 1) return digits(ms) + " ms";
  if (s < 59.95) return digits(s) + " s";
  const t = Math.round(s), d = Math.floor(t / 86400), h = Math.floor(t / 3600) % 24, m = Math.floor(t / 60) % 60;
  return d ? `${d} d ${h} h` : h ? `${h} h ${m} min` : `${m} min ${t % 60} s`;
}
const count = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, ",");

// A round step of at least this size: 1, 2 or 5 times a power of ten.
function round(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((x) => x * power).find((x) => x >= least * 0.999);
}
// The same for times: above a second, in seconds, minutes and hours.
function roundTime(least) {
  if (least <= 1e6) return round(least);
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 43200, 86400];
  const step = steps.find((s) => s * 1e6 >= least);
  return step ? step * 1e6 : 86400e6 * round(least / 86400e6);
}
// A tick's label, no finer than the step.
function tick(us, step) {
  if (us === 0) return "0";
  const digits = (unit) => Math.max(0, Math.ceil(-Math.log10(step / unit) - 1e-9));
  if (us < 1e3) return us.toFixed(0) + " µs";
  if (us < 1e6) return (us / 1e3).toFixed(Math.min(3, digits(1e3))) + " ms";
  if (us < 60e6 || step < 1e6) return (us / 1e6).toFixed(Math.min(6, digits(1e6))) + " s";
  const t = Math.round(us / 1e6), two = (n) => String(n).padStart(2, "0");
  return t < 3600 ? `${Math.floor(t / 60)}:${two(t % 60)}`
    : `${Math.floor(t / 3600)}:${two(Math.floor(t / 60) % 60)}:${two(t % 60)}`;
}

// A canvas as wide as its frame, in the screen's own pixels; drawn in CSS pixels.
function paper(id, height) {
  const canvas = $(id), ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth || canvas.parentElement.clientWidth || 800;
  canvas.style.height = height + "px";
  const w = Math.round(width * ratio), h = Math.round(height * ratio);
  if (canvas.width !== w) canvas.width = w;
  if (canvas.height !== h) canvas.height = h;
  const g = canvas.getContext("2d");
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.clearRect(0, 0, width, height);
  g.font = "12px system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif";
  g.textBaseline = "middle";
  return { g, width, height, ratio };
}

// Beside the mouse: its first line is what it is about. Only ever text, never markup.
function tell(event, head, lines) {
  const tip = $("tip");
  if (!head) { tip.hidden = true; return; }
  const first = document.createElement("code");
  first.textContent = head;
  tip.replaceChildren(first, ...lines.filter(Boolean).map((line) => {
    const item = document.createElement("span");
    item.textContent = line;
    return item;
  }));
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const x = event.clientX + 14, y = event.clientY + 16;
  tip.style.left = Math.max(4, Math.min(x, innerWidth - box.width - 8)) + "px";
  tip.style.top = (y + box.height > innerHeight ? Math.max(4, event.clientY - box.height - 10) : y) + "px";
}
