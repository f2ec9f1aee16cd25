// Records that never came: how many are missing of a symbol, and of each gap what is known.

import { count } from "./format.js";

const when = (text) => (text ? text.slice(0, 19).replace("T", " ") : "?");

function cell(text, name = "") {
  const made = document.createElement("td");
  made.textContent = text;
  made.className = name;
  return made;
}

function line(gap) {
  const made = document.createElement("tr");
  made.append(
    cell(when(gap.from_timestamp), "time"),
    cell(when(gap.to_timestamp), "time"),
    cell(gap.missing === null ? "?" : count(gap.missing), "number"),
    cell(gap.cause),
    cell(gap.state),
  );
  return made;
}

/** Rows of GET /v1/gaps into the `details` box, which shows only while something is missing. */
export function showGaps(box, rows) {
  const open = rows.filter((gap) => gap.state !== "filled");
  box.hidden = open.length === 0;
  if (box.hidden) return;
  const missing = open.reduce((sum, gap) => sum + (gap.missing ?? 0), 0);
  const unknown = open.some((gap) => gap.missing === null) ? "at least " : "";
  const gaps = open.length === 1 ? "1 gap" : `${count(open.length)} gaps`;
  box.querySelector("summary").textContent = `${gaps}: ${unknown}${count(missing)} trades missing`;
  box.querySelector("tbody").replaceChildren(...open.map(line));
}
