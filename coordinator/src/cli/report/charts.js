// Throughput under the timeline, and how long attempts took.
const label = (pen, text, x, y, align) => {
  pen.fillStyle = colours.soft;
  pen.textAlign = align;
  pen.textBaseline = "top";
  pen.fillText(text, x, y);
};

const drawRate = () => {
  const { pen, width, height } = prepare($("rate"), 84);
  const bins = Math.max(10, Math.floor((width - left) / 6));
  const size = (view.to - view.from) / bins;
  const [good, bad] = [new Float64Array(bins), new Float64Array(bins)];
  for (let at = 0; at < count; at++) {
    const bin = Math.floor((data.start[at] + data.length[at] - view.from) / size);
    if (bin >= 0 && bin < bins) (state(at) === "ok" ? good : bad)[bin] += 1e6 / size;
  }
  const most = nice(good.reduce((most, value, bin) => Math.max(most, value + bad[bin]), 0) || 1);
  const wide = (width - left - 2) / bins;
  const tall = height - 16;
  for (let bin = 0; bin < bins; bin++) {
    const [up, more] = [good[bin] / most * tall, bad[bin] / most * tall];
    pen.fillStyle = colours.ok;
    pen.fillRect(left + bin * wide, height - up, Math.max(1, wide - 1), up);
    pen.fillStyle = colours.failed;
    pen.fillRect(left + bin * wide, height - up - more, Math.max(1, wide - 1), more);
  }
  pen.fillStyle = colours.line;
  pen.fillRect(left, 14, width - left, 1);
  label(pen, number(Number(most.toPrecision(3))) + " a second", left, 1, "left");
};

const drawHistogram = () => {
  const { pen, width, height } = prepare($("histogram"), 150);
  const least = Math.max(1, data.length.reduce((least, length) => Math.min(least, length), Infinity));
  const low = Math.floor(Math.log10(least));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(longest, 2))));
  const each = Math.max(4, Math.floor((width - left) / 14 / (high - low)));
  const bins = (high - low) * each;
  const [good, bad] = [new Uint32Array(bins), new Uint32Array(bins)];
  for (let at = 0; at < count; at++) {
    const place = (Math.log10(Math.max(1, data.length[at])) - low) * each;
    const bin = Math.min(bins - 1, Math.max(0, Math.floor(place)));
    (state(at) === "ok" ? good : bad)[bin]++;
  }
  const most = good.reduce((most, value, bin) => Math.max(most, value + bad[bin]), 1);
  const wide = (width - left - 2) / bins;
  const [top, bottom] = [16, height - 20];
  for (let bin = 0; bin < bins; bin++) {
    // A single attempt beside thousands is still to be seen.
    const tall = (value) => value && Math.max(2, value / most * (bottom - top));
    const [up, more] = [tall(good[bin]), tall(bad[bin])];
    pen.fillStyle = colours.ok;
    pen.fillRect(left + bin * wide, bottom - up, wide - 1, up);
    pen.fillStyle = colours.failed;
    pen.fillRect(left + bin * wide, bottom - up - more, wide - 1, more);
  }
  pen.fillStyle = colours.line;
  pen.fillRect(left, bottom, width - left, 1);
  for (let power = low; power <= high; power++) {
    const x = left + (power - low) * each * wide;
    label(pen, time(10 ** power), Math.min(Math.max(x, left + 12), width - 22), bottom + 5, "center");
  }
  label(pen, number(most), left - 8, top - 4, "right");
};

const drawTime = () => { drawBars(); drawRate(); };
const draw = () => { readColours(); drawTime(); drawHistogram(); };
try {
  $("charts").hidden = false;
  draw();
  addEventListener("resize", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  document.body.dataset.drawn = count;
} catch (error) {
  $("charts").hidden = true;
  $("trouble").hidden = false;
  $("trouble").textContent = "The charts could not be drawn: " + error;
}
