-- The best bid and ask of each symbol over its exchanges, after each quote that changed them.
-- A quote of an exchange stands until its next one, and no longer than its exchange date.
with quotes as (
    select
        symbol,
        exchange,
        exchange_date,
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
    select distinct symbol, exchange
    from quotes
),
asked as (
    select quotes.symbol, named.exchange, exchange_date, timestamp, number
    from quotes
    join named on named.symbol = quotes.symbol
),
standing as (
    select
        asked.symbol,
        asked.exchange,
        asked.exchange_date,
        asked.timestamp,
        asked.number,
        quotes.bid_price,
        quotes.bid_quantity,
        quotes.ask_price,
        quotes.ask_quantity,
        max(quotes.bid_price) over moment as best_bid,
        min(quotes.ask_price) over moment as best_ask
    from asked
    asof join quotes
        on quotes.symbol = asked.symbol
        and quotes.exchange = asked.exchange
        and quotes.number <= asked.number
    where quotes.date_end > epoch_us(asked.timestamp)
    window moment as (partition by asked.number)
),
best as (
    select
        symbol,
        exchange_date,
        timestamp,
        number,
        max(best_bid) as bid_price,
        (sum(bid_quantity) filter (where bid_price = best_bid))::decimal(38, 8) as bid_quantity,
        string_agg(exchange, ',' order by exchange) filter (where bid_price = best_bid)
            as bid_exchanges,
        min(best_ask) as ask_price,
        (sum(ask_quantity) filter (where ask_price = best_ask))::decimal(38, 8) as ask_quantity,
        string_agg(exchange, ',' order by exchange) filter (where ask_price = best_ask)
            as ask_exchanges
    from standing
    group by symbol, exchange_date, timestamp, number
),
told as (
    select
        *,
        row(bid_price, bid_quantity, bid_exchanges, ask_price, ask_quantity, ask_exchanges) as state
    from best
),
changed as (
    select *
    from told
    qualify state is distinct from
        lag(state) over (partition by symbol, exchange_date order by number)
)
select
    symbol,
    timestamp,
    bid_price,
    bid_quantity,
    bid_exchanges,
    ask_price,
    ask_quantity,
    ask_exchanges
from changed
where {kept}
qualify $newest is null
    or row_number() over (partition by symbol order by number desc) <= $newest
order by symbol, number
