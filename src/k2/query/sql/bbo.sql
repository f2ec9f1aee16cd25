-- The best bid and ask of each symbol over its exchanges, after each quote that changed them.
-- A quote of an exchange stands until its next one, and no longer than its exchange date.
-- Which exchanges quote the best price is a sum of bits until the end: a text a row takes as long
-- as all the rest.
with quotes as (
    select
        symbol,
        exchange,
        exchange_date,
        epoch_us(timestamp) as time_us,
        timestamp,
        bid_price,
        bid_quantity,
        ask_price,
        ask_quantity,
        date_end,
        row_number() over (order by {order}) as number
    from {rows}
    join {days} using (exchange, exchange_date)
    where {predicate}
),
named as (
    select symbol, exchange, rank_of
    from (select distinct symbol, exchange from quotes)
    join {exchanges} using (exchange)
),
asked as (
    select quotes.symbol, named.exchange, named.rank_of, quotes.number, quotes.time_us
    from quotes
    join named on named.symbol = quotes.symbol
),
standing as (
    select
        asked.number,
        1::hugeint << asked.rank_of as bit,
        quotes.bid_price,
        quotes.bid_quantity,
        quotes.ask_price,
        quotes.ask_quantity
    from asked
    asof join quotes
        on quotes.symbol = asked.symbol
        and quotes.exchange = asked.exchange
        and quotes.number <= asked.number
    where quotes.date_end > asked.time_us
),
prices as (
    select number, max(bid_price) as bid, min(ask_price) as ask
    from standing
    group by number
),
best as (
    select
        number,
        any_value(bid) as bid_price,
        sum(bid_quantity) filter (where bid_price = bid) as bid_quantity,
        sum(bit) filter (where bid_price = bid) as bid_bits,
        any_value(ask) as ask_price,
        sum(ask_quantity) filter (where ask_price = ask) as ask_quantity,
        sum(bit) filter (where ask_price = ask) as ask_bits
    from standing
    join prices using (number)
    group by number
),
told as (
    select
        quotes.symbol,
        quotes.exchange_date,
        quotes.timestamp,
        best.*,
        row(
            best.bid_price, best.bid_quantity, bid_bits, best.ask_price, best.ask_quantity, ask_bits
        ) as state
    from best
    join quotes using (number)
),
changed as (
    select *
    from told
    qualify state is distinct from
        lag(state) over (partition by symbol, exchange_date order by number)
),
kept as (
    select *
    from changed
    where {kept}
    qualify $newest is null
        or row_number() over (partition by symbol order by number desc) <= $newest
),
sets as (
    select bits, string_agg(exchange, ',' order by exchange) as names
    from (select distinct bits from (
        select bid_bits as bits from kept union select ask_bits from kept
    ))
    join {exchanges} on (bits >> rank_of) % 2 = 1
    group by bits
)
select
    symbol,
    timestamp,
    bid_price,
    bid_quantity::decimal(38, 8) as bid_quantity,
    bids.names as bid_exchanges,
    ask_price,
    ask_quantity::decimal(38, 8) as ask_quantity,
    asks.names as ask_exchanges
from kept
left join sets as bids on bids.bits = bid_bits
left join sets as asks on asks.bits = ask_bits
order by symbol, number
