-- What bars are made of, from trades and from partial bars of files that are rolled up.
select
    symbol,
    exchange,
    start,
    arg_min(open, first_place) as open,
    max(high) as high,
    min(low) as low,
    arg_max(close, last_place) as close,
    sum(volume) as volume,
    sum(trade_count)::bigint as trade_count,
    sum(turnover) as turnover
from (
    select
        {keys},
        {start} as start,
        arg_min(price, {place}) as open,
        max(price) as high,
        min(price) as low,
        arg_max(price, {place}) as close,
        sum(quantity) as volume,
        count(*) as trade_count,
        sum(price::decimal(28, 8) * quantity) as turnover,
        min({place}) as first_place,
        max({place}) as last_place
    from {rows}
    where {predicate}
    group by all
    union all
    select
        {keys},
        {start} as start,
        arg_min(open, {first}) as open,
        max(high) as high,
        min(low) as low,
        arg_max(close, {last}) as close,
        sum(volume) as volume,
        sum(trade_count)::bigint as trade_count,
        sum(turnover) as turnover,
        min({first}) as first_place,
        max({last}) as last_place
    from {partial}
    where {predicate}
    group by all
)
group by all
