// The timeline: a row for each worker, a bar for each attempt.
const left = 42; // where the rows begin, beside the workers' numbers
const rows = data.workers.length;
const rowHeight = rows > 40 ? 12 : rows > 16 ? 18 : 26;
const whole = { from: -end * 0.005, to: end * 1.005 };
let view = { ...whole };
// The longest attempt says how far before the view a bar may begin that reaches into it.
const longest = data.length.reduce((most, length) => Math.max(most, length), 0);

const firstFrom = (micros) => {
  let [low, high] = [0, count];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (data.start[middle] < micros) low = middle + 1; else high = middle;
  }
  return low;
};
const across = (width) => (width - left - 2) / (view.to - view.from);

const drawBars = () => {
  const { pen, width, height } = prepare($("bars"), rows * rowHeight + 4);
  const scale = across(width);
  const x = (micros) => left + (micros - view.from) * scale;
  pen.fillStyle = colours.soft;
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  data.workers.forEach((worker, row) => {
    pen.fillText(worker || "–", left - 8, (row + 0.5) * rowHeight + 2);
  });
  pen.save();
  pen.beginPath();
  pen.rect(left, 0, width - left, height);
  pen.clip();
  // Between two runs time is left out.
  pen.strokeStyle = colours.soft;
  pen.setLineDash([3, 3]);
  for (const run of data.runs.slice(1)) {
    const at = Math.round(x(run.from)) - 2.5;
    pen.beginPath();
    pen.moveTo(at, 0);
    pen.lineTo(at, height);
    pen.stroke();
  }
  pen.setLineDash([]);
  // What is narrower than a pixel is gathered, a pixel of a row at a time.
  const pixels = new Map();
  const until = firstFrom(view.to);
  for (let at = firstFrom(view.from - longest); at < until; at++) {
    const from = x(data.start[at]);
    const wide = data.length[at] * scale;
    if (from + wide < left) continue;
    const top = data.row[at] * rowHeight + 3;
    if (wide < 1.5) {
      const key = data.row[at] * 65536 + Math.max(0, Math.floor(from));
      const there = pixels.get(key);
      if (there === undefined || rank(there) < rank(at)) pixels.set(key, at);
      continue;
    }
    pen.fillStyle = colours[state(at)] || colours.unknown;
    pen.fillRect(from, top, Math.max(1, wide - 0.7), rowHeight - 3);
    if (again(at)) {
      pen.strokeStyle = colours.card;
      pen.lineWidth = 1;
      for (let stripe = 3; stripe < Math.min(wide, width); stripe += 6) {
        pen.beginPath();
        pen.moveTo(from + stripe, top);
        pen.lineTo(from + stripe - 3, top + rowHeight - 3);
        pen.stroke();
      }
    }
  }
  for (const [key, at] of pixels) {
    pen.fillStyle = colours[state(at)] || colours.unknown;
    pen.fillRect(key % 65536, Math.floor(key / 65536) * rowHeight + 3, 1.5, rowHeight - 3);
  }
  pen.restore();
  drawAxis();
};

const drawAxis = () => {
  const { pen, width } = prepare($("axis"), 20);
  const scale = across(width);
  const step = nice((view.to - view.from) / Math.max(2, width / 110));
  pen.fillStyle = colours.soft;
  pen.textBaseline = "top";
  pen.textAlign = "center";
  for (let at = Math.max(0, Math.ceil(view.from / step) * step); at <= view.to; at += step) {
    const x = left + (at - view.from) * scale;
    pen.fillRect(x, 0, 1, 4);
    pen.fillText(at === 0 ? "0" : time(at), Math.min(x, width - 24), 6);
  }
  const shown = view.from <= 0 && view.to >= end ? "" : time(Math.max(0, view.from)) + " to " + time(Math.min(end, view.to));
  $("range").textContent = shown;
};

const look = (from, to) => {
  const least = Math.min(20, end);
  if (to - from < least) [from, to] = [(from + to - least) / 2, (from + to + least) / 2];
  const wide = Math.min(to - from, whole.to - whole.from);
  from = Math.min(Math.max(from, whole.from), whole.to - wide);
  view = { from, to: from + wide };
  requestAnimationFrame(drawTime);
};
const zoom = (factor, about = (view.from + view.to) / 2) =>
  look(about - (about - view.from) * factor, about + (view.to - about) * factor);
const move = (part) => look(view.from + (view.to - view.from) * part, view.to + (view.to - view.from) * part);
const showAll = () => look(whole.from, whole.to);

const bars = $("bars");
const under = (event) => {
  const box = bars.getBoundingClientRect();
  return { x: event.clientX - box.left, y: event.clientY - box.top, width: box.width };
};
const timeAt = ({ x, width }) => view.from + (x - left) / across(width);
const describe = (at) => [
  data.inputs[data.input[at]],
  `${state(at).replaceAll("_", " ")} after ${time(data.length[at])}, attempt ${data.attempt[at]}` +
    (again(at) ? ", tried again" : "") + `, worker ${data.workers[data.row[at]]}`,
  data.reasons[data.reason[at]],
].filter(Boolean).join("\n");
const barAt = (event) => {
  const place = under(event);
  const row = Math.floor((place.y - 2) / rowHeight);
  const micros = timeAt(place);
  const reach = 2 / across(place.width);
  let found = -1;
  const until = firstFrom(micros + reach);
  for (let at = firstFrom(micros - longest - reach); at < until; at++) {
    if (data.row[at] !== row || data.start[at] + data.length[at] < micros - reach) continue;
    if (found < 0 || rank(at) >= rank(found)) found = at;
  }
  return found;
};

let drag = null;
bars.addEventListener("pointerdown", (event) => {
  if (event.button === 0) drag = { from: under(event).x, at: timeAt(under(event)) };
});
addEventListener("pointermove", (event) => {
  if (drag) {
    const to = under(event).x;
    $("select").hidden = Math.abs(to - drag.from) < 4;
    $("select").style.left = Math.min(to, drag.from) + "px";
    $("select").style.width = Math.abs(to - drag.from) + "px";
    hideTip();
  } else if (event.target === bars) {
    const at = barAt(event);
    if (at < 0) hideTip(); else showTip(event, describe(at));
  } else if (!event.target.closest || !event.target.closest("canvas")) hideTip();
});
addEventListener("pointerup", (event) => {
  if (drag && !$("select").hidden) {
    const to = timeAt(under(event));
    look(Math.min(drag.at, to), Math.max(drag.at, to));
  }
  drag = null;
  $("select").hidden = true;
});
bars.addEventListener("wheel", (event) => {
  event.preventDefault();
  if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) move(Math.sign(event.deltaX) * 0.1);
  else zoom(event.deltaY > 0 ? 1.25 : 0.8, timeAt(under(event)));
}, { passive: false });
bars.addEventListener("dblclick", showAll);
bars.addEventListener("keydown", (event) => {
  const act = { "+": () => zoom(0.7), "-": () => zoom(1.4), ArrowLeft: () => move(-0.2), ArrowRight: () => move(0.2), 0: showAll }[event.key];
  if (act) { event.preventDefault(); act(); }
});
$("in").addEventListener("click", () => zoom(0.6));
$("out").addEventListener("click", () => zoom(1.6));
$("reset").addEventListener("click", showAll);
for (const row of document.querySelectorAll("tr[data-bar]")) {
  row.addEventListener("click", () => {
    const at = Number(row.dataset.bar);
    const margin = Math.max(data.length[at], end / 200);
    look(data.start[at] - margin, data.start[at] + data.length[at] + margin);
    bars.scrollIntoView({ block: "center", behavior: "smooth" });
  });
}
