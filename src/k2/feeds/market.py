"""A seeded market in integers: blocks of 65,536 records, each made from its number alone.

Comes in: a seed, what to trade and how fast. Goes out: columns of integers (ticks, lots,
microseconds). Block 1,000,000 costs what block 0 does: every block holds the same number of
records of each symbol, so its sequences begin at (block x quota), and prices at its edges are
sums of noise at doubling distances, which look like a random walk and need no history.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import isqrt
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

BLOCK: Final = 1 << 16
CELL: Final = 1 << 8
"""Records between two moves of the mid prices: 256 cells make a block."""
CELLS: Final = BLOCK // CELL
MOST_SYMBOLS: Final = 5_000
MOST_RECORDS: Final = 1 << 40
"""A market ends after these, 13 days at a million a second: its times would pass 64 bits later."""

KNOWN: Final = (
    ("BTCUSDT", "67000"),
    ("ETHUSDT", "3500"),
    ("SOLUSDT", "170"),
    ("BNBUSDT", "600"),
    ("XRPUSDT", "0.62"),
    ("DOGEUSDT", "0.16"),
    ("ADAUSDT", "0.45"),
    ("TRXUSDT", "0.14"),
    ("AVAXUSDT", "36"),
    ("LINKUSDT", "17"),
    ("DOTUSDT", "7.1"),
    ("LTCUSDT", "83"),
    ("BCHUSDT", "460"),
    ("NEARUSDT", "6.4"),
    ("UNIUSDT", "9.8"),
    ("ATOMUSDT", "8.3"),
    ("XLMUSDT", "0.11"),
    ("ETCUSDT", "29"),
    ("FILUSDT", "5.8"),
    ("AAVEUSDT", "105"),
)
"""The first symbols and about where their prices stand; generated ones follow."""

_UNIT: Final = 10**8
"""Prices and quantities are counted in 1e-8, the model's scale."""

_ONE: Final = 1 << 32
"""Relative moves of prices are fixed-point numbers with 32 bits behind the point."""

_VARIANCE_PER_SECOND: Final = (_ONE * 15 // 100_000) ** 2
"""1.5 basis points a second: about 85 % a year, a lively day of a coin."""

_FARTHEST: Final = _ONE * 8 // 100
"""Most that the slowest noise moves; all noises together keep prices within +-50 % of the base."""

# What a random stream is for: the second word of its seed.
_LEVELS, _WALKS, _ACTIVITIES, _BURSTS, _RECORDS, _FAULTS, _NAMES = range(7)

_ACTIVITY_HEIGHTS: Final = (56,) * 14
"""Of the noise in the logarithm (base 2, in 1/256) of traded quantities, at 1, 2, 4 … blocks."""


@dataclass(frozen=True)
class Parameters:
    """What shapes the records: equal parameters give equal records on any machine.

    `pace` is in records/s of market time. Fault rates are shares of 2**32, at most 2**32 together.
    `count` ends the market: the number of its last record plus one.
    """

    seed: int = 1
    symbols: int = 20
    kinds: tuple[str, ...] = ("trades", "quotes")
    pace: int = 20_000
    gaps: int = 0
    duplicates: int = 0
    late: int = 0
    malformed: int = 0
    count: int = MOST_RECORDS


@dataclass(frozen=True)
class Block:
    """The records of one block in the market's order; all columns have `BLOCK` rows.

    `times` are microseconds since the market began, ascending. `prices` and `quantities` count
    1e-8: of a trade in [0], of a quote its bid in [0] and its ask in [1].
    """

    number: int
    is_quote: npt.NDArray[np.bool_]
    symbols: Ints
    sequences: Ints
    times: Ints
    is_buy: npt.NDArray[np.bool_]
    prices: tuple[Ints, Ints]
    quantities: tuple[Ints, Ints]


def draw(seed: int, purpose: int, first: int, second: int, words: int) -> npt.NDArray[np.uint64]:
    """`words` random words that depend on nothing but the four numbers (each below 2**32).

    Raw words of PCG64, since numpy promises only these to be the same in every version; its
    distributions may change. Four words fill the seed's pool: shorter keys are padded with zeros
    and would fall together.
    """
    sequence = np.random.SeedSequence((seed, purpose, first, second))
    words_drawn: Any = np.random.PCG64(sequence).random_raw(words)
    return np.asarray(words_drawn, dtype="<u8")


def draw_faults(parameters: Parameters, number: int) -> npt.NDArray[np.uint64]:
    """A word for each record of block `number`, to decide its fault by; all else stays equal."""
    return draw(parameters.seed, _FAULTS, number, 0, BLOCK)


class Market:
    """The symbols of a market and what never changes about them, ready to make blocks."""

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        count = parameters.symbols
        bases = _prices(parameters.seed, count)
        self.names = _names(count)
        self.ticks = np.array([_decade(price, 100_000) for price in bases], dtype=np.int64)
        """Smallest step of each symbol's price, in 1e-8."""
        self.lots = np.array([_decade(2 * _UNIT * _UNIT // p, 1) for p in bases], dtype=np.int64)
        """Smallest step of each symbol's quantity, in 1e-8: about one unit of currency's worth."""
        self._bases = np.array(bases, dtype=np.int64) // self.ticks
        self._spreads = 1 + np.minimum(np.arange(count), 9)
        # How far each symbol follows the common factor, in 1/256.
        self._follows = 150 + np.arange(count) * 37 % 80
        quotas = np.tile(zipf_quotas(BLOCK // len(parameters.kinds), count), len(parameters.kinds))
        self.quotas = quotas
        """Records of each lane in every block; a lane is a kind and a symbol, kinds outside."""
        self._lanes = np.repeat(np.arange(len(quotas), dtype=np.uint16), quotas)
        self._ordinals = np.arange(BLOCK) - np.repeat(np.cumsum(quotas) - quotas, quotas)
        variance = _VARIANCE_PER_SECOND * BLOCK // parameters.pace
        self._step = isqrt(3 * variance // CELLS)
        self._heights = _noise_heights(variance)

    def block(self, number: int) -> Block:
        """Block `number`: records number x BLOCK to (number + 1) x BLOCK, the end exclusive."""
        words = draw(self.parameters.seed, _RECORDS, number, 0, 2 * BLOCK)
        bits, sizes = words[:BLOCK], words[BLOCK:].view("<u2").reshape(BLOCK, 4)
        # A 16-bit key a record: numpy sorts these by radix, eight times as fast as wider ones.
        # The few that tie stay in the lanes' order, which nobody sees.
        lanes = self._lanes[np.argsort(sizes[:, 3], kind="stable")]
        ordinals = np.empty(BLOCK, dtype=np.int64)
        ordinals[np.argsort(lanes, kind="stable")] = self._ordinals
        sequences = number * self.quotas[lanes] + ordinals + 1

        kind, symbols = np.divmod(lanes.astype(np.int64), len(self.names))
        is_quote = kind == 1 if len(self.parameters.kinds) == 2 else self._only_quotes()
        is_buy = (bits & np.uint64(1)).astype(bool)
        prices = self._prices_of(number, symbols, bits, is_quote, is_buy)
        lots, activities = self.lots[symbols], self._activities(number)[symbols]
        small, large = (_lot_counts(sizes[:, n], activities) * lots for n in (0, 1))
        times = self._times(number, (bits >> np.uint64(8)) & np.uint64(255))
        return Block(number, is_quote, symbols, sequences, times, is_buy, prices, (small, large))

    def _only_quotes(self) -> npt.NDArray[np.bool_]:
        return np.full(BLOCK, self.parameters.kinds == ("quotes",))

    def _prices_of(
        self,
        number: int,
        symbols: Ints,
        bits: npt.NDArray[np.uint64],
        is_quote: npt.NDArray[np.bool_],
        is_buy: npt.NDArray[np.bool_],
    ) -> tuple[Ints, Ints]:
        """Bid and ask of quotes; trades print at the side that they take, at times beyond it."""
        cells = np.arange(BLOCK) // CELL * len(self.names) + symbols
        bids = self._bids(number).ravel()[cells]
        asks = bids + self._spreads[symbols]
        away = ((bits >> np.uint64(16)) & np.uint64(7)).astype(np.int64)
        # Of eight, four quotes stand at the best prices, the others up to four ticks away; a
        # trade eats as far into the book as often.
        away = np.maximum(away - 3, 0)
        first = np.where(is_quote | ~is_buy, bids - away, asks + away)
        return first * self.ticks[symbols], (asks + away) * self.ticks[symbols]

    def _bids(self, number: int) -> Ints:
        """Best bid of each cell and symbol, in ticks: [CELLS, symbols]."""
        width = len(self.names) + 1
        start, end = (self._noise(_LEVELS, self._heights, n) for n in (number, number + 1))
        steps = draw(self.parameters.seed, _WALKS, number, 0, CELLS * width // 2 + 1)
        moves = _spread_evenly(steps.view("<u4")[: CELLS * width], self._step)
        walks = np.cumsum(moves.reshape(CELLS, width), axis=0)
        # Bent so that it ends where the next block begins.
        share = np.arange(1, CELLS + 1)[:, np.newaxis]
        walks += start + (end - start - walks[-1]) * share // CELLS
        # Column 0 is what all follow.
        relative = walks[:, 1:] * 150 + walks[:, :1] * self._follows >> 8
        return self._bases + (self._bases * relative >> 32)

    def _activities(self, number: int) -> Ints:
        """By how much more or less is traded in each symbol during the block, in 1/8192."""
        noise = self._noise(_ACTIVITIES, _ACTIVITY_HEIGHTS, number)
        # 2**x, with a straight line between whole x; x lies between -7 and 7.
        whole, fraction = np.divmod(noise[1:] + noise[0], 256)
        return (256 + fraction << (whole + 7)) >> 2

    def _noise(self, purpose: int, heights: Sequence[int], number: int) -> Ints:
        """What all symbols share, then each symbol's own, at the beginning of block `number`.

        Noise in +-height at the multiples of 1, 2, 4 … blocks with straight lines between, summed.
        """
        width = len(self.names) + 1
        total = np.zeros(width, dtype=np.int64)
        for octave, height in enumerate(heights):
            index, inside = number >> octave, number & ((1 << octave) - 1)
            words = (draw(self.parameters.seed, purpose, octave, index + n, width) for n in (0, 1))
            left, right = (_spread_evenly(w >> np.uint64(32), height) for w in words)
            total += left + ((right - left) * inside >> octave)
        return total

    def _times(self, number: int, jitter: npt.NDArray[np.uint64]) -> Ints:
        """Microseconds since the beginning, ascending, at an intensity that varies."""
        pace = self.parameters.pace
        start, end = (n * BLOCK * 1_000_000 // pace for n in (number, number + 1))
        words = draw(self.parameters.seed, _BURSTS, number, 0, CELLS).astype(np.int64)
        weights = 64 + (words & 63)
        for word in words[:4].tolist():
            first, length = (word >> 8) & 255, 4 + ((word >> 16) & 15)
            weights[first : first + length] >>= 3
        edges = np.concatenate(([0], np.cumsum(weights)))
        edges = start + (end - start) * edges // edges[-1]
        inside = (np.arange(BLOCK) % CELL * 256 + jitter.astype(np.int64)).reshape(CELLS, CELL)
        widths = np.diff(edges)[:, np.newaxis]
        return (edges[:-1, np.newaxis] + (widths * inside >> 16)).ravel()


def zipf_quotas(total: int, count: int) -> Ints:
    """`total` shared among `count`, the n-th getting 1/n of the first; at least 1 each."""
    weights = [10**12 // (n + 1) for n in range(count)]
    quotas = [max(1, total * weight // sum(weights)) for weight in weights]
    quotas[0] += total - sum(quotas)
    return np.array(quotas, dtype=np.int64)


def _names(count: int) -> list[str]:
    """The well-known names, then six letters that can be pronounced, all different."""
    syllables = [c + v for c in "BDFGKLMNPRSTVZ" for v in "AEIOU"]
    names = [name for name, _ in KNOWN[:count]]
    for n in range(count - len(names)):
        # 4,801 has no factor in common with 70**3, so that no name comes twice.
        letters, n = "", n * 4_801 + 12_345
        for _ in range(3):
            n, last = divmod(n, len(syllables))
            letters = syllables[last] + letters
        names.append(f"{letters}USDT")
    return names


def _prices(seed: int, count: int) -> list[int]:
    """About where each symbol's price stands, in 1e-8: 0.01 to 1,000 for generated ones."""
    known = [int(Decimal(price) * _UNIT) for _, price in KNOWN[:count]]
    words = draw(seed, _NAMES, 0, 0, count).tolist()
    return known + [
        (10_000 + word % 90_000) * 10 ** (2 + (word >> 32) % 5) for word in words[len(known) :]
    ]


def _decade(value: int, parts: int) -> int:
    """The largest power of ten that is at most 1/`parts` of the value; at least 1."""
    return int(10 ** (len(str(max(1, value // parts))) - 1))


def _noise_heights(variance: int) -> list[int]:
    """Height of the noise at distances of 1, 2, 4 … blocks, for that variance between blocks.

    Uniform noise in +-h at distance 2**k, joined by straight lines, gives a block's move the
    variance 2/3 h**2 / 4**k. With h**2 = 3/4 variance 2**k the sum over all k is the variance.
    """
    heights = [isqrt(3 * variance // 4)]
    while len(heights) < 30:
        height = isqrt(3 * (variance << len(heights)) // 4)
        if height > _FARTHEST:
            break
        heights.append(height)
    return heights


def _spread_evenly(words: npt.NDArray[Any], height: int) -> Ints:
    """32-bit words to integers in -height … height (height below 2**30)."""
    return (words.astype(np.int64) * (2 * height + 1) >> 32) - height


def _lot_counts(words: npt.NDArray[np.uint16], activities: Ints) -> Ints:
    """16-bit words to numbers of lots: most are small (half are below 1,024), a few 16 x that.

    All of it times the activity, in 1/8192.
    """
    wide = words.astype(np.uint64)
    counts = (wide * wide * wide * wide >> np.uint64(50)).astype(np.int64)
    return 1 + (counts * activities >> 13)
