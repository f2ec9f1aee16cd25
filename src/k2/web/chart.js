// Candles and volume of one symbol. Bars come as the server's rows; here alone they become numbers.

import {
  CandlestickSeries,
  createChart,
  CrosshairMode,
  HistogramSeries,
} from "./vendor/lightweight-charts.js";
import { grouped, places } from "./format.js";

// Beyond this many bars the oldest view is long enough, and memory stays bounded.
const MOST_BARS = 20000;

const seconds = (bar) => Math.floor(Date.parse(bar.start) / 1000);

/** A chart in `box`; `onOlder()` is called when its left edge comes near. */
export class Chart {
  constructor(box, legend, onOlder) {
    this.box = box;
    this.legend = legend;
    this.bars = new Map();
    this.precision = 0;
    this.hovered = null;
    this.chart = createChart(box, {
      autoSize: true,
      // Its logo would bring an inline style, which this page's policy forbids; the notice and the
      // link stand in the footer.
      layout: { attributionLogo: false },
      crosshair: { mode: CrosshairMode.Normal },
      rightPriceScale: { borderVisible: false, scaleMargins: { top: 0.12, bottom: 0.06 } },
      timeScale: {
        borderVisible: false,
        timeVisible: true,
        rightOffset: 5,
        barSpacing: 8,
        minBarSpacing: 0.4,
      },
      localization: { locale: "en-GB" },
    });
    this.candles = this.chart.addSeries(CandlestickSeries, { borderVisible: false });
    this.volume = this.chart.addSeries(
      HistogramSeries,
      { priceFormat: { type: "volume" }, priceLineVisible: false, lastValueVisible: false },
      1,
    );
    this.volume.priceScale().applyOptions({ scaleMargins: { top: 0.15, bottom: 0 } });
    const [upper, lower] = this.chart.panes();
    upper.setStretchFactor(4);
    lower.setStretchFactor(1);
    this.chart.timeScale().subscribeVisibleLogicalRangeChange((range) => {
      if (range && range.from < 60 && this.bars.size && this.bars.size < MOST_BARS) onOlder();
    });
    this.chart.subscribeCrosshairMove((move) => {
      this.hovered = move.time ?? null;
      this.tell();
    });
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", () => this.paint());
    this.paint();
  }

  /** Start of the oldest and the newest bar as the server spelled them; null without bars. */
  get oldest() {
    return this.first?.start ?? null;
  }

  get newest() {
    return this.last?.start ?? null;
  }

  /** Begin anew with these bars, oldest first. */
  show(bars, { seconds: withSeconds }) {
    this.bars = new Map(bars.map((bar) => [seconds(bar), bar]));
    this.edges();
    this.chart.applyOptions({ timeScale: { secondsVisible: withSeconds } });
    this.precision = -1;
    this.precise(bars);
    this.fill();
    this.chart.timeScale().applyOptions({ barSpacing: 8 });
    this.chart.timeScale().scrollToRealTime();
  }

  /** Put older bars in front. */
  prepend(bars) {
    this.bars = new Map([...bars.map((bar) => [seconds(bar), bar]), ...this.bars]);
    this.edges();
    this.fill();
  }

  /** Take in new bars and new states of the newest ones; older ones are left as they are. */
  update(bars) {
    const newest = this.last ? seconds(this.last) : 0;
    for (const bar of bars) {
      const time = seconds(bar);
      this.bars.set(time, bar);
      if (time < newest || bar.open === null) continue;
      this.candles.update(this.toCandle(time, bar));
      this.volume.update(this.toVolume(time, bar));
    }
    this.edges();
    this.precise(bars);
    this.tell();
  }

  edges() {
    let first = null;
    let last = null;
    for (const time of this.bars.keys()) {
      if (first === null || time < first) first = time;
      if (last === null || time > last) last = time;
    }
    this.first = first === null ? null : this.bars.get(first);
    this.last = last === null ? null : this.bars.get(last);
  }

  precise(bars) {
    let most = Math.max(this.precision, 0);
    for (const bar of bars.slice(-200)) most = Math.max(most, places(bar.close ?? ""));
    if (most === this.precision) return;
    this.precision = most;
    const priceFormat = {
      type: "custom",
      formatter: (price) => grouped(price.toFixed(this.precision)),
      minMove: 10 ** -this.precision,
    };
    this.candles.applyOptions({ priceFormat });
  }

  fill() {
    const times = [...this.bars.keys()].sort((a, b) => a - b);
    const rows = times
      .map((time) => [time, this.bars.get(time)])
      .filter(([, bar]) => bar.open !== null);
    this.candles.setData(rows.map(([time, bar]) => this.toCandle(time, bar)));
    this.volume.setData(rows.map(([time, bar]) => this.toVolume(time, bar)));
    this.tell();
  }

  toCandle(time, bar) {
    const candle = { time, open: +bar.open, high: +bar.high, low: +bar.low, close: +bar.close };
    if (bar.complete !== false) return candle;
    const color = candle.close >= candle.open ? this.faint.up : this.faint.down;
    return { ...candle, color, wickColor: color };
  }

  toVolume(time, bar) {
    const up = +bar.close >= +bar.open;
    return { time, value: +bar.volume, color: up ? this.faint.up : this.faint.down };
  }

  /** The values of the bar under the crosshair, or of the newest one, as exact text. */
  tell() {
    const bar = (this.hovered !== null && this.bars.get(this.hovered)) || this.last;
    this.legend.replaceChildren();
    if (!bar || bar.open === null) return;
    const tone = +bar.close >= +bar.open ? "up" : "down";
    const told = [
      ["O", bar.open],
      ["H", bar.high],
      ["L", bar.low],
      ["C", bar.close],
      ["Vol", bar.volume],
      ["VWAP", bar.vwap],
    ];
    for (const [name, value] of told) {
      const item = document.createElement("span");
      const label = document.createElement("i");
      label.textContent = name;
      const text = document.createElement("b");
      text.dataset.value = name;
      text.textContent = grouped(value, name === "Vol" || name === "VWAP" ? 0 : this.precision);
      text.className = name === "Vol" || name === "VWAP" ? "" : tone;
      item.append(label, text);
      this.legend.append(item);
    }
  }

  /** Take the colours of the style sheet, which follow the reader's light or dark. */
  paint() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    this.faint = { up: colour("--up-faint"), down: colour("--down-faint") };
    this.chart.applyOptions({
      layout: {
        background: { color: colour("--panel") },
        textColor: colour("--dim"),
        fontFamily: colour("--font"),
        fontSize: 11,
        panes: { separatorColor: colour("--line"), separatorHoverColor: colour("--hover") },
      },
      grid: { vertLines: { color: colour("--grid") }, horzLines: { color: colour("--grid") } },
      crosshair: {
        vertLine: { color: colour("--dim"), labelBackgroundColor: colour("--label") },
        horzLine: { color: colour("--dim"), labelBackgroundColor: colour("--label") },
      },
    });
    this.candles.applyOptions({
      upColor: colour("--up"),
      downColor: colour("--down"),
      wickUpColor: colour("--up"),
      wickDownColor: colour("--down"),
    });
    if (this.bars.size) this.fill();
  }
}
