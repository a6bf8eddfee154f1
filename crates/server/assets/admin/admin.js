// The admin's page: asks the node every few seconds, and shows what it says. Texts of others are never markup.
"use strict";

const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat();
let timer;

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

function element(name, text) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  return made;
}

function table(target, head, rows) {
  const row = (cells, name) => {
    const made = element("tr");
    made.append(...cells.map((cell) => element(name, cell)));
    return made;
  };
  const [top, body] = [element("thead"), element("tbody")];
  top.append(row(head, "th"));
  body.append(...rows.map((cells) => row(cells, "td")));
  target.replaceChildren(top, body);
}

function pairs(target, entries, name, value) {
  target.replaceChildren(...entries.map(([title, text]) => {
    const pair = element("div");
    pair.append(...(name === "dt" ? [element(name, title), element(value, text)] : [element(value, text), element(name, title)]));
    return pair;
  }));
}

function show(report) {
  const state = report.draining ? ", on its way out" : "";
  $("node").textContent = `${report.name} · ${report.version} · up for ${time(report.uptime)}${state}`;
  const sum = (of) => report.workers.reduce((all, worker) => all + of(worker), 0);
  const sessions = (worker, stage) => Object.values(worker.sessions).reduce((all, one) => all + one[stage], 0);
  pairs($("tiles"), [
    ["connected", number.format(sum((worker) => sessions(worker, "connected")))],
    ["coming in", number.format(sum((worker) => sessions(worker, "coming")))],
    ["subscriptions", number.format(sum((worker) => worker.subscriptions))],
    ["tasks", number.format(sum((worker) => worker.tasks))],
    ["queues with something", number.format(sum((worker) => worker.queues.waiting))],
  ], "span", "b");
  const memory = report.memory;
  const share = memory.ceiling && memory.resident !== null ? memory.resident / memory.ceiling : 0;
  $("bar").firstElementChild.style.width = `${Math.min(100, share * 100)}%`;
  $("bar").classList.toggle("full", share > 0.95);
  pairs($("memory"), [
    ["process", bytes(memory.resident)],
    ["ceiling", memory.ceiling ? bytes(memory.ceiling) : "none"],
    ["histories", `${bytes(memory.histories)} of ${number.format(memory.kept_channels)} channels`],
    ["waiting to be written", bytes(memory.queues)],
    ["addresses", number.format(memory.addresses)],
  ], "dt", "dd");
  const transports = [...new Set(report.workers.flatMap((worker) => Object.keys(worker.sessions)))].sort();
  table($("workers"), ["worker", ...transports, "tasks", "subscriptions", "queued", "longest queue"], report.workers.map((worker) => [
    worker.name,
    ...transports.map((name) => number.format(worker.sessions[name]?.connected ?? 0)),
    number.format(worker.tasks),
    number.format(worker.subscriptions),
    bytes(worker.queues.bytes),
    bytes(worker.queues.longest),
  ]));
}

async function ask(path) {
  const response = await fetch(path, { credentials: "same-origin" });
  if (response.status === 401) {
    logged(false);
    throw new Error("not logged in");
  }
  if (!response.ok) throw new Error(await response.text());
  return response.json();
}

async function refresh() {
  clearTimeout(timer);
  try {
    show(await ask("/admin/debug"));
    logged(true);
    const pattern = encodeURIComponent($("pattern").value);
    const { total, channels } = await ask(`/admin/channels?limit=50&pattern=${pattern}`);
    table($("channels"), ["channel", "clients"], channels.map((one) => [one.channel, number.format(one.clients)]));
    $("total").textContent = `${number.format(total)} channels match, the largest are shown`;
  } catch (error) {
    if ($("board").hidden) return;
    $("total").textContent = error.message;
  }
  timer = setTimeout(refresh, document.hidden ? 30000 : 3000);
}

function logged(isIn) {
  $("login").hidden = isIn;
  $("board").hidden = $("logout").hidden = !isIn;
  if (!isIn) {
    clearTimeout(timer);
    $("node").textContent = "";
    $("password").focus();
  }
}

function post(path, body) {
  return fetch(path, {
    method: "POST",
    credentials: "same-origin",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
}

$("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const response = await post("/admin/login", { password: $("password").value });
  $("problem").textContent = response.ok ? "" : await response.text();
  $("password").value = "";
  if (response.ok) refresh();
});
$("logout").addEventListener("click", async () => {
  await post("/admin/logout", {});
  logged(false);
});
$("pattern").addEventListener("change", refresh);
refresh();
