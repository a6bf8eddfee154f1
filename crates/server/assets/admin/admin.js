// The admin's page: asks the node every few seconds, and shows what it says. Texts of others are never markup.
"use strict";

const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat();
/** How often the node is asked, and how often while nobody looks, in milliseconds. */
const PAUSE = 3000;
const LONG_PAUSE = 30000;
/** How many answers a line of a tile shows: ten minutes. */
const REMEMBERED = 200;

let timer;
/** Answers that are out of date say nothing any more. */
let asked = 0;
let answered = 0;
/** Of each tile with a line. */
let past = {};

function bytes(value) {
  if (value === null) return "not known";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit ? value.toFixed(1) : value} ${units[unit]}`;
}

function time(seconds) {
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = parts.findIndex(([length]) => seconds >= length);
  if (first < 0) return "0 s";
  let rest = seconds;
  return parts.slice(first, first + 2).map(([length, name]) => {
    const count = Math.floor(rest / length);
    rest %= length;
    return `${count} ${name}`;
  }).join(" ");
}

function element(name, text, of) {
  const made = of ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  if (text !== undefined) made.textContent = text;
  return made;
}

/** A table whose rows begin with what they are of. */
function table(target, head, rows) {
  const [top, body, names] = [element("thead"), element("tbody"), element("tr")];
  names.append(...head.map((cell) => Object.assign(element("th", cell), { scope: "col" })));
  top.append(names);
  body.append(...rows.map(([first, ...cells]) => {
    const row = element("tr");
    row.append(Object.assign(element("th", first), { scope: "row" }), ...cells.map((cell) => element("td", cell)));
    return row;
  }));
  target.replaceChildren(top, body);
}

function pairs(target, entries) {
  target.replaceChildren(...entries.map(([title, text, colour]) => {
    const pair = element("div");
    if (colour) pair.className = colour;
    pair.append(element("dt", title), element("dd", text));
    return pair;
  }));
}

/** What a number has been since the page is open, as a line. */
function line(values) {
  const svg = element("svg", undefined, "svg");
  svg.setAttribute("viewBox", "0 0 100 30");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const most = Math.max(1, ...values);
  const across = (at) => (values.length < 2 ? 0 : (100 * at) / (values.length - 1));
  const points = values.map((value, at) => `${across(at).toFixed(2)},${(28 - (24 * value) / most).toFixed(2)}`);
  if (points.length === 1) points.push(points[0].replace(/^0.00/, "100"));
  for (const [name, shape] of [["polygon", `0,30 ${points.join(" ")} 100,30`], ["polyline", points.join(" ")]]) {
    const drawn = element(name, undefined, "svg");
    drawn.setAttribute("points", shape);
    svg.append(drawn);
  }
  return svg;
}

function tiles(entries) {
  $("tiles").replaceChildren(...entries.map(([title, value, shown = number.format]) => {
    const tile = element("div");
    tile.className = "tile";
    tile.append(element("b", shown(value)), element("span", title));
    if (value !== null) {
      past[title] = [...(past[title] ?? []), value].slice(-REMEMBERED);
      tile.append(line(past[title]));
    }
    return tile;
  }));
}

function transports(workers) {
  const counts = new Map();
  for (const { sessions } of workers)
    for (const [name, { connected }] of Object.entries(sessions))
      counts.set(name, (counts.get(name) ?? 0) + connected);
  const names = [...counts.keys()].sort();
  const all = [...counts.values()].reduce((sum, count) => sum + count, 0);
  const colour = (at) => `c${at % 5}`;
  $("transport-bar").replaceChildren(...names.filter((name) => counts.get(name)).map((name) => {
    const part = element("i");
    part.className = colour(names.indexOf(name));
    part.style.width = `${(100 * counts.get(name)) / all}%`;
    return part;
  }));
  pairs($("transports"), names.length
    ? names.map((name, at) => [name, number.format(counts.get(name)), colour(at)])
    : [["nobody is connected", ""]]);
  return names;
}

function show(report) {
  $("node").textContent = `${report.name} · ${report.version} · up for ${time(report.uptime)}`;
  document.title = `${report.name} · Tautline`;
  state(report.draining ? "on its way out" : "serving", report.draining);
  const { workers, memory } = report;
  const sum = (of) => workers.reduce((all, worker) => all + of(worker), 0);
  const sessions = (worker, stage) => Object.values(worker.sessions).reduce((all, one) => all + one[stage], 0);
  tiles([
    ["connected", sum((worker) => sessions(worker, "connected"))],
    ["coming in", sum((worker) => sessions(worker, "coming"))],
    ["subscriptions", sum((worker) => worker.subscriptions)],
    ["to be written", memory.queues, bytes],
    ["memory", memory.resident, bytes],
  ]);
  const share = memory.ceiling && memory.resident !== null ? memory.resident / memory.ceiling : 0;
  $("memory-bar").hidden = !memory.ceiling;
  $("memory-bar").firstElementChild.style.width = `${Math.min(100, share * 100)}%`;
  $("memory-bar").classList.toggle("full", share > 0.95);
  pairs($("memory"), [
    ["process", bytes(memory.resident)],
    ["ceiling", memory.ceiling ? bytes(memory.ceiling) : "none"],
    ["histories", bytes(memory.histories)],
    ["channels kept", number.format(memory.kept_channels)],
    ["addresses", number.format(memory.addresses)],
    ["tasks", number.format(sum((worker) => worker.tasks))],
  ]);
  const names = transports(workers);
  const head = ["worker", ...names, "tasks", "subscriptions", "queues", "queued", "longest queue"];
  table($("workers"), head, workers.map((worker) => [
    worker.name,
    ...names.map((name) => number.format(worker.sessions[name]?.connected ?? 0)),
    number.format(worker.tasks),
    number.format(worker.subscriptions),
    number.format(worker.queues.waiting),
    bytes(worker.queues.bytes),
    bytes(worker.queues.longest),
  ]));
}

function showChannels({ total, channels }) {
  table($("channels"), ["channel", "clients"], channels.map((one) => [one.channel, number.format(one.clients)]));
  const most = Math.max(1, ...channels.map((one) => one.clients));
  $("channels").querySelectorAll("tbody th").forEach((cell, at) => {
    const bar = element("i");
    bar.style.width = `${(100 * channels[at].clients) / most}%`;
    cell.append(bar);
  });
  const some = channels.length < total ? `; the ${number.format(channels.length)} largest are shown` : "";
  const pattern = $("pattern").value ? " of this pattern" : "";
  $("total").textContent = `${number.format(total)} ${total === 1 ? "channel" : "channels"}${pattern}${some}`;
}

function state(text, isTrouble) {
  // Read out by screen readers when it changes, not every three seconds.
  if ($("state").textContent !== text) $("state").textContent = text;
  $("state").classList.toggle("trouble", Boolean(isTrouble));
  $("board").classList.toggle("stale", text === SILENT);
}

const SILENT = "no answer";

/** The session is over, which needn't be told as a failure. */
class LoggedOut extends Error {}

async function ask(path) {
  const response = await fetch(path, { credentials: "same-origin" });
  if (response.status === 401) throw new LoggedOut();
  if (!response.ok) throw Object.assign(new Error((await response.text()).trim()), { status: response.status });
  return response.json();
}

async function refresh() {
  clearTimeout(timer);
  const turn = ++asked;
  try {
    const report = await ask("/admin/debug");
    if (turn !== asked) return;
    logged(true);
    answered = Date.now();
    show(report);
    const pattern = encodeURIComponent($("pattern").value);
    const channels = await ask(`/admin/channels?limit=50&pattern=${pattern}`);
    if (turn !== asked) return;
    showChannels(channels);
  } catch (error) {
    if (turn !== asked) return;
    if (error instanceof LoggedOut) return logged(false, answered ? "The session is over: log in again." : "");
    // A pattern that is none is told where it stands.
    if (error.status === 400) $("total").textContent = error.message;
    else state(SILENT, true);
  }
  timer = setTimeout(refresh, document.hidden ? LONG_PAUSE : PAUSE);
}

function logged(isIn, why = "") {
  $("login").hidden = isIn;
  $("board").hidden = $("top").hidden = !isIn;
  if (isIn) return;
  clearTimeout(timer);
  asked += 1;
  answered = 0;
  past = {};
  document.title = "Tautline";
  for (const id of ["tiles", "transports", "memory", "workers", "channels"]) $(id).replaceChildren();
  for (const id of ["node", "total"]) $(id).textContent = "";
  $("pattern").value = "";
  $("problem").textContent = why;
  $("password").focus();
}

async function post(path, body) {
  try {
    const response = await fetch(path, {
      method: "POST",
      credentials: "same-origin",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    return response.ok ? "" : (await response.text()).trim();
  } catch {
    return "The server does not answer.";
  }
}

$("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = event.submitter ?? $("login").querySelector("button");
  button.disabled = true;
  const problem = await post("/admin/login", { password: $("password").value });
  button.disabled = false;
  $("problem").textContent = problem;
  $("password").value = "";
  if (problem) $("password").focus();
  else refresh();
});
$("logout").addEventListener("click", async () => {
  const problem = await post("/admin/logout", {});
  // Whoever believes to be logged out should be.
  if (problem) state(problem, true);
  else logged(false);
});
let typing;
$("pattern").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(refresh, 200);
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !$("board").hidden) refresh();
});
refresh();
