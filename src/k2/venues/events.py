"""What happens at a venue: trades and quotes in integers, before anybody prints them."""

from typing import NamedTuple


class Trade(NamedTuple):
    """An execution. `symbol` is the place in the venue's list, `number` its id (one more than the
    symbol's last), `time` microseconds since 1970 by the venue's clock, `price` and `quantity`
    count 1e-8, `is_buy` says that the aggressor bought.
    """

    symbol: int
    number: int
    time: int
    price: int
    quantity: int
    is_buy: bool


class Quote(NamedTuple):
    """A new best bid and ask; `number` is the symbol's update id, all else as in `Trade`."""

    symbol: int
    number: int
    time: int
    bid: int
    bid_quantity: int
    ask: int
    ask_quantity: int


Event = Trade | Quote


class Symbol(NamedTuple):
    """What is traded: its place in the venue's list, its name there, its numbers' digits."""

    place: int
    name: str
    price_digits: int
    quantity_digits: int
