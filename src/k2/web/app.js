// The page: what is shown, and the loops that keep it as new as the records are.

import { Chart } from "./chart.js";
import { change, count, duration, grouped } from "./format.js";
import { showGaps } from "./gaps.js";
import { keyOf, List, WINDOW } from "./list.js";
import { again, get, post } from "./source.js";
import { showQuote, Tape } from "./tape.js";

const INTERVALS = { "1s": 1, "5s": 5, "1m": 60, "5m": 300, "1h": 3600 };
const PAGE_BARS = 600;
const LAST_TRADES = 40;
const MOST_GAPS = 200;
// A symbol whose last record is older than this is history: it is asked for less often.
const LIVE_SECONDS = 3600;
// The span of the list: half an hour, or less where the records do not go back so far.
const SPANS = [
  { interval: "10s", seconds: 10, label: "5 min" },
  { interval: "1m", seconds: 60, label: "30 min" },
];

const $ = (id) => document.getElementById(id);
const shown = { row: null, interval: "1m", session: 0, ready: false, done: false, wait: null };
const chart = new Chart($("chart"), $("legend"), older);
const tape = new Tape($("tape"));
const list = new List($("list"), $("search"), (row) => {
  pick(row);
  openPicker(false);
});

// --- what is shown -------------------------------------------------------------------------

function pick(row, interval = shown.interval) {
  shown.wait?.abort();
  const same = shown.row && keyOf(shown.row) === keyOf(row);
  Object.assign(shown, { row, interval, ready: false, done: false, wait: new AbortController() });
  shown.session += 1;
  const place = [row.exchange, row.symbol, interval].map(encodeURIComponent).join("/");
  history.replaceState(null, "", `#${place}`);
  list.mark(keyOf(row));
  for (const button of $("intervals").children) {
    button.setAttribute("aria-pressed", button.value === interval);
  }
  $("symbol").textContent = row.symbol;
  $("exchange").textContent = [row.exchange, row.asset_class].filter(Boolean).join(" · ");
  if (!same) {
    tape.clear();
    showGaps($("gaps"), []);
    day(null);
    showQuote($("quote"), null);
    price(null);
  }
  $("chart").setAttribute("aria-label", `Chart of ${row.symbol}: bars of ${interval}, and volume`);
  turnBars();
  turnTape();
  turnGaps();
}

function price(text) {
  const box = $("price");
  const before = box.dataset.value;
  if (text === null) {
    box.textContent = "–";
    delete box.dataset.value;
    $("change").textContent = "";
    document.title = "K2";
    return;
  }
  if (before === text) return;
  box.dataset.value = text;
  box.textContent = grouped(text, chart.precision);
  const sign = before ? change(before, text).text[0] : "";
  box.className = sign === "+" ? "up" : sign === "−" ? "down" : "";
  setTimeout(() => (box.className = ""), 250);
  document.title = `${grouped(text, chart.precision)} ${shown.row.symbol} · K2`;
}

/** What every question about the symbol on show says. */
function about(row) {
  return { symbol: row.symbol, exchange: row.exchange };
}

const age = (row) => (Date.parse(row.last_timestamp) - Date.parse(row.first_timestamp)) / 1000;

/** The interval that shows most of a symbol whose records go back so far. */
function fitting(row) {
  return age(row) < 300 ? "1s" : age(row) < 1800 ? "5s" : "1m";
}

function isLive(row) {
  return Date.now() - Date.parse(row.last_timestamp) < LIVE_SECONDS * 1000;
}

/** Milliseconds between two questions about the symbol on show. */
const pace = () => (shown.row && !isLive(shown.row) ? 3000 : 300);

// --- loops ---------------------------------------------------------------------------------

async function bars() {
  const { row, interval, session, wait } = shown;
  if (!row) return;
  const path = `/v1/bars/${interval}`;
  const options = { slot: "bars", signal: wait.signal };
  if (!shown.ready) {
    const { data } = await get(path, { ...about(row), last: PAGE_BARS }, { signal: wait.signal });
    if (session !== shown.session) return;
    chart.show(data, { seconds: INTERVALS[interval] < 60 });
    shown.ready = true;
    empty(data.length ? null : "No bars in this range yet.");
  } else {
    const asked = { ...about(row), start_time: chart.newest, last: PAGE_BARS };
    const found = await get(path, asked, options);
    if (session !== shown.session || !found) return;
    if (found.data.length) empty(null);
    chart.update(found.data);
  }
  if (chart.last?.close) price(chart.last.close);
}

async function older() {
  const { row, interval, session, wait } = shown;
  if (!shown.ready || shown.done || shown.loading || !chart.oldest) return;
  shown.loading = true;
  try {
    const asked = { ...about(row), end_time: chart.oldest, last: PAGE_BARS };
    const found = await get(`/v1/bars/${interval}`, asked, { signal: wait.signal });
    if (session !== shown.session) return;
    if (found.data.length) chart.prepend(found.data);
    else shown.done = true;
  } catch (error) {
    if (error.name !== "AbortError") shown.done = true;
  } finally {
    shown.loading = false;
  }
}

async function records() {
  const { row, session, wait } = shown;
  if (!row) return;
  const asked = about(row);
  const [trades, quotes] = await Promise.all([
    get("/v1/trades", { ...asked, last: LAST_TRADES }, { slot: "trades", signal: wait.signal }),
    get("/v1/quotes", { ...asked, last: 1 }, { slot: "quotes", signal: wait.signal }),
  ]);
  if (session !== shown.session) return;
  if (trades) {
    tape.update(trades.data);
    day(trades.data.at(-1)?.timestamp);
  }
  if (quotes) showQuote($("quote"), quotes.data.at(-1));
}

async function gaps() {
  const { row, session, wait } = shown;
  if (!row) return;
  const asked = { ...about(row), kind: "trades", limit: MOST_GAPS };
  const found = await get("/v1/gaps", asked, { slot: "gaps", signal: wait.signal });
  if (session === shown.session && found) showGaps($("gaps"), found.data);
}

/** Says of which day the last trades are, where that is not today. */
function day(timestamp) {
  const told = timestamp?.slice(0, 10) ?? "";
  $("day").textContent = told === new Date().toISOString().slice(0, 10) ? "" : told;
}

async function symbols() {
  const found = await get("/v1/symbols", {}, { slot: "symbols" });
  if (!found) return;
  list.fill(found.data);
  if (!found.data.length) {
    empty("No records yet.\nLoad a file with k2 load, or start a feed with k2 feed.");
    return;
  }
  if (shown.row) {
    const now = found.data.find((row) => keyOf(row) === keyOf(shown.row));
    if (now) shown.row = now;
    return;
  }
  empty(null);
  const [exchange, symbol, interval] = location.hash.slice(1).split("/").map(decodeURIComponent);
  const wanted = found.data.find((row) => row.exchange === exchange && row.symbol === symbol);
  const most = found.data.reduce((a, b) => (b.trades > a.trades ? b : a));
  const row = wanted ?? most;
  pick(row, wanted && INTERVALS[interval] ? interval : fitting(row));
  turnPrices();
}

const pastBars = new Map();

/** Last prices and volume bars of the list; of symbols that are history only once. */
async function prices() {
  const rows = [...list.lines.values()].map((line) => line.row);
  const live = rows.filter(isLive).slice(0, 100);
  const past = rows.filter((row) => !isLive(row) && !pastBars.has(keyOf(row))).slice(0, 10);
  const oldest = Math.max(0, ...rows.map(age));
  const span = SPANS.find(({ seconds }) => oldest < WINDOW * seconds) ?? SPANS.at(-1);
  $("span").textContent = span.label;
  const asked = { interval: span.interval, last: WINDOW };
  if (live.length) {
    const names = [...new Set(live.map((row) => row.symbol))];
    const start_time = `-${WINDOW * span.seconds}s`;
    const found = await post("/v1/bars/batch", { ...asked, symbols: names, start_time });
    list.update(found.data);
    const own = shown.row && found.data.filter((bar) => keyOf(bar) === keyOf(shown.row));
    if (own?.length) moved(own, span);
  }
  for (const row of past) {
    const exchanges = [row.exchange];
    const found = await post("/v1/bars/batch", { ...asked, symbols: [row.symbol], exchanges });
    list.update(found.data);
    pastBars.set(keyOf(row), found.data);
  }
  const own = shown.row && pastBars.get(keyOf(shown.row));
  if (own?.length) moved(own, span);
}

function moved(own, span) {
  const { text, sign } = change(own[0].open, own.at(-1).close);
  $("change").textContent = text;
  $("change").className = `change ${sign > 0 ? "up" : sign < 0 ? "down" : ""}`;
  $("change").title = `over the last ${span.label}`;
}

async function state() {
  const { data } = await get("/v1/status");
  const now = data[0];
  const set = (name, text, title = "") => {
    const found = document.querySelector(`[data-state=${name}]`);
    found.textContent = text;
    found.title = title;
  };
  set("rate", count(now.records_per_second));
  set("lag", count(now.lag_messages), "messages in the log that no snapshot holds yet");
  set("freshness", duration(now.freshness_seconds), "age of the newest record that a query sees");
  set("rows", count(now.rows));
  set("snapshot", String(now.snapshot ?? "–"), "the newest commit");
  const level = now.level.toLowerCase().replace("_", " ");
  const waiting = now.shed_waiting ? ` · ${count(now.shed_waiting)} shed` : "";
  const meaning = "of the writer; records that it sheds wait in the log and come in later";
  set("level", level + waiting, meaning);
  const audit = now.audit;
  $("audit").className = `badge ${audit.state}`;
  $("audit").textContent = audit.state;
  $("audit").title = audit.at ? `audited at ${audit.at}, in ${audit.seconds} s` : "not audited yet";
}

// --- the frame -----------------------------------------------------------------------------

function empty(text) {
  $("empty").hidden = !text;
  $("empty").textContent = text ?? "";
}

function trouble(error) {
  $("dot").className = error ? "dot off" : "dot on";
  $("connection").textContent = error ? "reconnecting" : "connected";
  $("connection").title = error ? error.message : "";
}

function openPicker(open) {
  $("symbols").classList.toggle("open", open);
  $("picker").setAttribute("aria-expanded", open);
  document.body.classList.toggle("picking", open);
  if (open) $("search").focus();
}

for (const interval of Object.keys(INTERVALS)) {
  const button = document.createElement("button");
  Object.assign(button, { type: "button", value: interval, textContent: interval });
  button.addEventListener("click", () => shown.row && pick(shown.row, interval));
  $("intervals").append(button);
}
$("close").addEventListener("click", () => openPicker(false));
$("picker").addEventListener("click", () => openPicker(!$("symbols").classList.contains("open")));
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    openPicker(true);
    $("search").select();
  }
  if (event.key === "Escape") openPicker(false);
});

const quiet = () => {};
const turnBars = again(pace, bars, quiet);
const turnTape = again(pace, records, quiet);
const turnGaps = again(() => 5000, gaps, quiet);
const turnPrices = again(() => 2000, prices, quiet);
again(() => 1000, state, trouble);
again(() => 4000, symbols, quiet);
