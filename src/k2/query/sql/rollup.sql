-- Partial bars of one data file: a row for each minute, or for each day, of a symbol at an exchange.
-- Trades that form no price are kept apart, and a partial bar stands where its first trade would:
-- `timestamp` is when the minute begins, so that conditions on trades hold for it as well.
-- `first_` and `last_` are the places of its first and last trade in the total order.
select
    symbol,
    exchange,
    exchange_date,
    price_forming,
    {begin} as timestamp,
    arg_min(price, {place}) as open,
    max(price) as high,
    min(price) as low,
    arg_max(price, {place}) as close,
    sum(quantity)::decimal(38, 8) as volume,
    count(*) as trade_count,
    sum(price::decimal(28, 8) * quantity)::decimal(38, 16) as turnover,
    min({time}) as first_time,
    arg_min({offset}, {place}) as first_offset,
    max({time}) as last_time,
    arg_max({offset}, {place}) as last_offset
from {rows}
group by all
order by symbol, exchange, timestamp
