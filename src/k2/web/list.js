// The list of symbols: last price, change, tiny volume bars; search and keyboard.

import { change, grouped, places } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";
export const WINDOW = 30;

/** Key of a symbol of an exchange. */
export const keyOf = (row) => `${row.exchange}\u0000${row.symbol}`;

function element(tag, name, text = "") {
  const made = document.createElement(tag);
  made.className = name;
  made.textContent = text;
  return made;
}

/** One line of the list, made once and updated in place. */
class Line {
  constructor(row, onPick) {
    this.row = row;
    this.places = 0;
    this.button = element("button", "line");
    this.button.type = "button";
    this.button.addEventListener("click", () => onPick(row));
    const name = element("span", "name", row.symbol);
    name.append(element("small", "", row.exchange));
    this.spark = document.createElementNS(SVG, "svg");
    this.spark.setAttribute("class", "spark");
    this.spark.setAttribute("viewBox", `0 0 ${WINDOW * 2} 24`);
    this.spark.setAttribute("preserveAspectRatio", "none");
    this.spark.setAttribute("aria-hidden", "true");
    this.path = document.createElementNS(SVG, "path");
    this.spark.append(this.path);
    const value = element("span", "value");
    this.price = element("b", "price", "–");
    this.change = element("small", "change", "");
    value.append(this.price, this.change);
    this.button.append(name, this.spark, value);
    this.item = element("li", "");
    this.item.append(this.button);
  }

  /** Take in the newest bars of this symbol, oldest first. */
  update(bars) {
    const traded = bars.filter((bar) => bar.close !== null);
    if (!traded.length) return;
    const close = traded.at(-1).close;
    if (close !== this.close) {
      this.places = Math.max(this.places, ...traded.map((bar) => places(bar.close)));
      this.price.textContent = grouped(close, this.places);
      this.close = close;
    }
    const moved = change(traded[0].open, close);
    this.change.textContent = moved.text;
    this.change.className = `change ${moved.sign > 0 ? "up" : moved.sign < 0 ? "down" : ""}`;
    this.path.setAttribute("d", this.outline(traded));
  }

  outline(bars) {
    const shown = bars.slice(-WINDOW);
    const most = Math.max(...shown.map((bar) => +bar.volume), Number.MIN_VALUE);
    const left = WINDOW - shown.length;
    return shown
      .map((bar, at) => {
        const height = Math.max((+bar.volume / most) * 24, 0.8).toFixed(1);
        return `M${(left + at) * 2} 24v-${height}h1.3v${height}z`;
      })
      .join("");
  }
}

/** The list in `box`, filtered by what is typed into `search`. */
export class List {
  constructor(box, search, onPick) {
    this.box = box;
    this.search = search;
    this.onPick = onPick;
    this.lines = new Map();
    search.addEventListener("input", () => this.filter());
    search.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown") this.step(event, -1, 1);
      if (event.key === "Enter") this.shown()[0]?.button.click();
      if (event.key === "Escape" && search.value) {
        search.value = "";
        this.filter();
        event.stopPropagation();
      }
    });
    box.addEventListener("keydown", (event) => {
      const at = this.shown().findIndex((line) => line.button === document.activeElement);
      if (event.key === "ArrowDown") this.step(event, at, 1);
      if (event.key === "ArrowUp") this.step(event, at, -1);
    });
  }

  /** The rows of GET /v1/symbols, most traded first. */
  fill(rows) {
    const order = [...rows].sort((a, b) => b.trades - a.trades);
    for (const row of order) {
      const key = keyOf(row);
      const line = this.lines.get(key);
      if (line) line.row = row;
      else this.add(key, row);
    }
  }

  add(key, row) {
    const line = new Line(row, this.onPick);
    this.lines.set(key, line);
    this.box.append(line.item);
    this.filter();
  }

  /** Bars of many symbols, as POST /v1/bars/batch gives them. */
  update(bars) {
    const bySymbol = new Map();
    for (const bar of bars) {
      const key = keyOf(bar);
      if (!bySymbol.has(key)) bySymbol.set(key, []);
      bySymbol.get(key).push(bar);
    }
    for (const [key, found] of bySymbol) this.lines.get(key)?.update(found);
  }

  /** Mark the symbol that the page shows. */
  mark(key) {
    for (const [other, line] of this.lines) {
      if (other === key) line.button.setAttribute("aria-current", "true");
      else line.button.removeAttribute("aria-current");
    }
  }

  shown() {
    return [...this.lines.values()].filter((line) => !line.item.hidden);
  }

  filter() {
    const typed = this.search.value.trim().toLowerCase();
    for (const line of this.lines.values()) {
      const text = `${line.row.symbol} ${line.row.exchange}`.toLowerCase();
      line.item.hidden = !text.includes(typed);
    }
  }

  step(event, from, by) {
    const shown = this.shown();
    event.preventDefault();
    if (from + by < 0) this.search.focus();
    else shown[Math.min(from + by, shown.length - 1)]?.button.focus();
  }
}
