// The last trades and the quote that stands: exact text, newest on top.

import { difference, grouped, places } from "./format.js";

const MARKS = { BUY: ["▲", "up", "bought"], SELL: ["▼", "down", "sold"] };
MARKS.SELL_SHORT = MARKS.SELL;

// When more rows than these come at once, lighting them up tells nothing and tires the eye.
const MOST_LIT = 8;

function cell(text, name = "") {
  const made = document.createElement("td");
  made.textContent = text;
  made.className = name;
  return made;
}

const keyOf = (row) => `${row.timestamp} ${row.trade_id} ${row.price} ${row.quantity}`;

/** Rows of GET /v1/trades (oldest first) into the table body, the newest on top. */
export class Tape {
  constructor(body) {
    this.body = body;
    this.clear();
  }

  clear() {
    this.known = new Set();
    this.body.replaceChildren();
  }

  update(rows) {
    const pricePlaces = Math.max(0, ...rows.map((row) => places(row.price)));
    const quantityPlaces = Math.max(0, ...rows.map((row) => places(row.quantity)));
    const before = this.known;
    this.known = new Set(rows.map(keyOf));
    const fresh = rows.filter((row) => !before.has(keyOf(row))).length;
    const lit = before.size > 0 && fresh <= MOST_LIT;
    const lines = [...rows].reverse().map((row) => {
      const [mark, tone, word] = MARKS[row.side] ?? ["·", "", "unknown side"];
      const line = document.createElement("tr");
      const aside = row.price_forming === false;
      if (lit && !before.has(keyOf(row))) line.classList.add("fresh");
      if (aside) line.classList.add("aside");
      const side = cell(mark, `side ${tone}`);
      side.setAttribute("aria-label", word);
      line.append(
        side,
        cell(grouped(row.price, pricePlaces), `number ${tone}`),
        cell(grouped(row.quantity, quantityPlaces), "number"),
        cell(row.timestamp.slice(11, 23), "time"),
      );
      line.title = `${row.timestamp} · ${word}${aside ? " · formed no price" : ""}`;
      return line;
    });
    this.body.replaceChildren(...lines);
  }
}

/** The newest quote into the elements of `box` named by `data-quote`. */
export function showQuote(box, row) {
  const set = (name, text) => {
    const found = box.querySelector(`[data-quote=${name}]`);
    if (found.textContent !== text) found.textContent = text;
  };
  const bid = row?.bid_price ?? null;
  const ask = row?.ask_price ?? null;
  const digits = Math.max(places(bid ?? ""), places(ask ?? ""));
  set("bid", grouped(bid, bid === null ? 0 : digits));
  set("ask", grouped(ask, ask === null ? 0 : digits));
  set("bid-quantity", row?.bid_quantity ? grouped(row.bid_quantity) : "");
  set("ask-quantity", row?.ask_quantity ? grouped(row.ask_quantity) : "");
  set("spread", bid === null || ask === null ? "–" : grouped(difference(ask, bid), digits));
}
