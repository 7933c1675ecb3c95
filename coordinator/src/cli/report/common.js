// What all charts share: the data, colours, units, and canvases as sharp as the screen.
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const count = data.start.length;
// Starts are written each from the one before.
for (let at = 1; at < count; at++) data.start[at] += data.start[at - 1];
const end = Math.max(1, data.end);

const state = (at) => data.names[data.status.toLowerCase().charCodeAt(at) - 97] || "unknown";
const again = (at) => data.status[at] !== data.status[at].toLowerCase();
// Where bars share a pixel, the worse is shown: no failure disappears in an overview.
const ranks = ["ok", "cancelled", "undecodable", "failed", "timed_out", "out_of_memory", "panicked", "died"];
const rank = (at) => ranks.indexOf(state(at)) + 1;

let colours = {};
const readColours = () => {
  const style = getComputedStyle(document.documentElement);
  const names = ["text", "soft", "line", "card", "accent", "unknown", ...data.names];
  colours = Object.fromEntries(names.map((name) => [name, style.getPropertyValue("--" + name).trim()]));
};

const units = [[1, "µs"], [1e3, "ms"], [1e6, "s"], [60e6, "min"], [3600e6, "h"]];
const time = (micros) => {
  const unit = units.findLast(([size]) => Math.abs(micros) >= size) || units[0];
  const value = micros / unit[0];
  return (value >= 100 ? value.toFixed(0) : Number(value.toPrecision(3))) + " " + unit[1];
};
const number = (value) => value.toLocaleString("en");
// The next of 1, 2, 5, 10, … that is not below.
const nice = (value) => {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((step) => step * power >= value) * power;
};

const prepare = (canvas, height) => {
  const width = canvas.parentElement.clientWidth;
  const scale = window.devicePixelRatio || 1;
  canvas.style.height = height + "px";
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = "11px system-ui, sans-serif";
  return { pen, width, height };
};

const tip = $("tip");
const showTip = (event, text) => {
  tip.textContent = text;
  tip.hidden = false;
  tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)) + "px";
  const below = event.clientY + 18;
  const fits = below + tip.offsetHeight < innerHeight;
  tip.style.top = (fits ? below : event.clientY - tip.offsetHeight - 10) + "px";
};
const hideTip = () => { tip.hidden = true; };
