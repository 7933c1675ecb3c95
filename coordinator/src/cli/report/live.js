// The page of a log that grows: it asks now and then whether there is more, and then draws itself anew.
const memory = "coordinator report";

function remember() {
  const state = { only, view: zoomed() ? view : null, searches: tables.map((table) => table.search.value) };
  sessionStorage.setItem(memory, JSON.stringify(state));
}
function recall() {
  const state = JSON.parse(sessionStorage.getItem(memory) || "null");
  if (!state) return;
  tables.forEach((table, at) => { table.search.value = state.searches[at] || ""; table.fill(); });
  if (state.only >= 0) press(state.only);
  if (state.view) zoomTo(state.view.from, state.view.to);
}

async function watch() {
  const { state, pause } = document.body.dataset;
  try {
    const now = await (await fetch("state")).text();
    if (now === "gone") { $("live").textContent = "no longer live: the log is gone"; setTimeout(watch, +pause); return; }
    if (now !== state) { if (drawn) remember(); location.reload(); return; }
    $("live").textContent = "live";
  } catch {
    $("live").textContent = "no longer live: coordinator report has ended";
  }
  setTimeout(watch, +pause);
}
if (drawn) recall();
setTimeout(watch, +document.body.dataset.pause);
