// The tables: they sort, search, follow the legend, and show more rows when asked. A row opens to all that is known of its
// call, by a click, by the keyboard, and by the page's address.
const page = 100;
const tables = [];

const of = {
  Call: (k) => data.seq[k], Input: (k) => data.inputs[data.input[k]],
  Outcome: (k) => labels[status[k]] + " " + data.reasons[data.reason[k]],
  Attempt: (k) => data.attempt[k], Duration: (k) => k < total ? ends[k] - starts[k] : -1,
  Worker: (k) => k < total ? data.row[k] + 1 : 0,
};

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function makeTable(id, all, what) {
  const table = $(id);
  if (!table) return;
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  const search = element("input", "", { type: "search", placeholder: "Search", "aria-label": `Search ${what}` });
  const note = element("span", "", { class: "note", role: "status" });
  const more = element("button", "Show more");
  const tools = element("div", "", { class: "bar find" });
  tools.append(search, note);
  table.parentElement.before(tools);
  table.parentElement.after(more);
  let by = null, down = false, room = page, list = [];

  const self = {
    search,
    fill() {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const text = (k) => `${of.Input(k)} ${of.Outcome(k)} ${data.said[data.words[k]]} ${of.Call(k)}`.toLowerCase();
      list = all.filter((k) => shown(k) && words.every((word) => text(k).includes(word)));
      if (by) {
        const key = of[by], sign = down ? -1 : 1;
        list.sort((a, b) => {
          const x = key(a), y = key(b);
          return sign * (x < y ? -1 : x > y ? 1 : 0) || a - b;
        });
      }
      body.replaceChildren(...list.slice(0, room).map((k) => makeRow(k)));
      more.hidden = list.length <= room;
      more.textContent = `Show ${count(Math.min(page, list.length - room))} more`;
      note.textContent = list.length < all.length ? `${count(list.length)} of ${count(all.length)}`
        : all.length > room ? `the first ${count(room)} of ${count(all.length)}` : "";
    },
    // The row of an attempt, even if the table would not show it now.
    reveal(k) {
      if (!all.includes(k)) return null;
      if (!list.includes(k)) { search.value = ""; by = null; self.fill(); }
      const place = list.indexOf(k);
      if (place < 0) return null;
      if (place >= room) { room = Math.ceil((place + 1) / page) * page; self.fill(); }
      return body.querySelector(`tr[data-attempt="${k}"]`);
    },
  };
  search.addEventListener("input", () => { room = page; self.fill(); });
  more.addEventListener("click", () => { room += page; self.fill(); });
  for (const head of heads) {
    const name = head.textContent, button = element("button", name, { class: "sort" });
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      down = by === name && !down;
      by = name;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      self.fill();
    });
  }
  tables.push(self);
  self.fill();
}

function makeRow(k) {
  const row = element("tr", "", { "data-attempt": k });
  const open = element("button", data.seq[k] < 0 ? "–" : String(data.seq[k]), { class: "open", "aria-expanded": "false" });
  open.title = "Show all that is known of this call";
  const cells = [open, element("code", data.inputs[data.input[k]]), "", data.attempt[k],
    k < total ? span(ends[k] - starts[k]) : "never ran", k < total ? data.workers[data.row[k]] || "–" : "–"];
  cells.forEach((content, at) => {
    const cell = element("td", "", at === 1 ? { class: "input" } : at === 2 ? {} : { class: "n" });
    if (at === 2) cell.append(...outcomeOf(k)); else cell.append(content);
    row.append(cell);
  });
  row.addEventListener("click", (event) => {
    if (String(getSelection()) && event.target !== open) return;
    toggle(row, k);
  });
  return row;
}

function outcomeOf(k) {
  const dot = element("i");
  dot.style.background = `var(--${data.names[status[k]]})`;
  const parts = [dot, labels[status[k]] + (again[k] ? ", tried again" : "")];
  if (data.reasons[data.reason[k]]) parts.push(element("small", data.reasons[data.reason[k]]));
  return parts;
}

// What the page's address says of a call: its run and its number.
const hashOf = (k) => data.seq[k] < 0 ? "" : `#call-${data.run[k] + 1}-${data.seq[k]}`;

function toggle(row, k) {
  const open = row.querySelector(".open"), was = open.getAttribute("aria-expanded") === "true";
  open.setAttribute("aria-expanded", !was);
  if (was) { row.nextSibling.remove(); return; }
  const cell = element("td", "", { colspan: row.cells.length });
  const detail = element("tr", "", { class: "detail" });
  detail.append(cell);
  cell.append(...tellAll(k));
  row.after(detail);
  const hash = hashOf(k);
  try { if (hash) history.replaceState(null, "", hash); } catch { /* some viewers have no address */ }
}

// All attempts at the call of an attempt, of those that the page has.
function attemptsAt(k) {
  const same = (other) => data.run[other] === data.run[k] && data.seq[other] === data.seq[k]
    && (data.seq[k] >= 0 || data.input[other] === data.input[k]);
  const all = [];
  for (let other = 0; other < attempts; other++) if (same(other)) all.push(other);
  return all.sort((a, b) => data.attempt[a] - data.attempt[b]);
}

function tellAll(k) {
  const list = element("ol", "", { "aria-label": "Attempts" });
  for (const one of attemptsAt(k)) {
    const item = element("li", "", { value: Math.max(1, data.attempt[one]) });
    item.append(...outcomeOf(one));
    if (one < total) {
      const at = span(Math.max(0, starts[one] - runs[data.run[one]].from));
      const into = runs.length > 1 ? `run ${data.run[one] + 1}` : "the run";
      const where = `${span(ends[one] - starts[one])} on worker ${data.workers[data.row[one]] || "–"}, ${at} into ${into} `;
      const jump = element("button", "Show in the timeline");
      jump.addEventListener("click", () => showBar(one));
      const line = element("div", where);
      line.append(jump);
      item.append(line);
    }
    if (data.said[data.words[one]]) item.append(element("pre", data.said[data.words[one]], { "aria-label": "stderr" }));
    list.append(item);
  }
  const command = commandOf(k);
  if (!command) return [list];
  const again = element("p", "To run it again: ");
  again.append(element("code", command));
  return [list, again];
}

// The command line that runs a call again; nothing where the page does not have all of its words.
function commandOf(k) {
  const template = data.runs[data.run[k]].template, input = data.inputs[data.input[k]];
  const cut = (text) => text.endsWith("…") || /[\u2400-\u2426\ufffd]/.test(text);
  if (!template || cut(template) || cut(input)) return "";
  return `coordinator ${template} ::: '${input.replaceAll("'", "'\\''")}'`;
}

function showBar(k) {
  const canvas = $("bars"), around = Math.max((ends[k] - starts[k]) * 2, 100);
  marked = k;
  canvas.scrollIntoView({ block: "center" });
  canvas.parentElement.scrollTop = data.row[k] * rowHeight - canvas.parentElement.clientHeight / 2;
  zoomTo(starts[k] - around, ends[k] + around);
}

function makeTables() {
  makeTable("failed", data.failed, "failed calls");
  const slowest = Array.from(starts.keys()).sort((a, b) => ends[b] - starts[b] - ends[a] + starts[a] || a - b);
  makeTable("slowest", slowest.slice(0, 1000), "slowest attempts");
  const rest = $("failed-more");
  if (rest) rest.remove();
}

// Opens the call that the page's address names.
function openByHash() {
  const found = /^#call-(\d+)-(\d+)$/.exec(location.hash);
  if (!found) return;
  const [run, seq] = [found[1] - 1, +found[2]];
  // The last attempt first: it is the one that a table of failed calls has.
  const all = [];
  for (let k = attempts - 1; k >= 0; k--) if (data.run[k] === run && data.seq[k] === seq) all.push(k);
  for (const table of tables) for (const k of all) {
    const row = table.reveal(k);
    if (!row) continue;
    if (row.querySelector(".open").getAttribute("aria-expanded") !== "true") toggle(row, k);
    row.scrollIntoView({ block: "center" });
    return;
  }
}
