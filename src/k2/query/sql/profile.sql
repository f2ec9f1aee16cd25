-- Volume by price: for each interval that has trades, its levels, the lowest first.
with levels as (
    select
        {keys},
        {start} as start,
        {level} as price,
        sum(quantity)::decimal(38, 8) as volume,
        count(*) as trade_count
    from {rows}
    where {predicate}
    group by all
)
select
    symbol,
    exchange,
    start,
    list(
        struct_pack(price := price, volume := volume, trade_count := trade_count) order by price
    ) as volume_profile
from levels
group by symbol, exchange, start
order by symbol, exchange, start
