// Exact decimals as text: grouping, padding, difference and change, without a float.

/** Digits behind the mark of a decimal text. */
export function places(text) {
  const mark = text.indexOf(".");
  return mark < 0 ? 0 : text.length - mark - 1;
}

/** `1234.5` with four places becomes `1,234.5000`; digits are never dropped. */
export function grouped(text, atLeast = 0) {
  if (text === null || text === undefined) return "–";
  const minus = text.startsWith("-") ? "−" : "";
  const [whole, part = ""] = text.replace("-", "").split(".");
  const padded = part.padEnd(atLeast, "0");
  const digits = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  return minus + digits + (padded ? "." + padded : "");
}

function scaled(text, count) {
  const [whole, part = ""] = text.split(".");
  return BigInt(whole + part.padEnd(count, "0"));
}

/** a − b, as decimal text. */
export function difference(a, b) {
  const count = Math.max(places(a), places(b));
  return unscaled(scaled(a, count) - scaled(b, count), count);
}

function unscaled(value, count) {
  const minus = value < 0n ? "-" : "";
  const digits = (value < 0n ? -value : value).toString().padStart(count + 1, "0");
  if (!count) return minus + digits;
  return minus + digits.slice(0, -count) + "." + digits.slice(-count);
}

/** The change from one price to another in percent with two digits, as `{text, sign}`. */
export function change(from, to) {
  if (!from || !to) return { text: "–", sign: 0 };
  const count = Math.max(places(from), places(to));
  const base = scaled(from, count);
  if (base <= 0n) return { text: "–", sign: 0 };
  const tenths = ((scaled(to, count) - base) * 100000n) / base;
  const hundredths = (tenths + (tenths < 0n ? -5n : 5n)) / 10n;
  const sign = hundredths > 0n ? 1 : hundredths < 0n ? -1 : 0;
  const text = unscaled(hundredths < 0n ? -hundredths : hundredths, 2);
  return { text: (sign > 0 ? "+" : sign < 0 ? "−" : "") + text + "%", sign };
}

/** A count for people: 1,234 up to a million, then 1.23 M. */
export function count(number) {
  if (number === null || number === undefined) return "–";
  for (const [size, unit] of [[1e12, " T"], [1e9, " G"], [1e6, " M"]]) {
    if (number >= size) return (number / size).toFixed(2) + unit;
  }
  return Math.round(number).toLocaleString("en-US");
}

/** Seconds for people: 80 ms, 1.2 s, 5 min, 3 h, 12 d. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1) return Math.round(seconds * 1000) + " ms";
  if (seconds < 60) return seconds.toFixed(1) + " s";
  if (seconds < 3600) return Math.round(seconds / 60) + " min";
  if (seconds < 86400) return Math.round(seconds / 3600) + " h";
  if (seconds < 86400 * 700) return Math.round(seconds / 86400) + " d";
  return (seconds / 86400 / 365.25).toFixed(1) + " y";
}
