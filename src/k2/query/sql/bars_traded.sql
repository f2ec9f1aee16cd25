-- What bars are made of, from trades.
select
    {keys},
    {start} as start,
    arg_min(price, {place}) as open,
    max(price) as high,
    min(price) as low,
    arg_max(price, {place}) as close,
    sum(quantity) as volume,
    count(*) as trade_count,
    sum(price::decimal(28, 8) * quantity) as turnover
    {measured}
from {rows}
where {predicate}
group by all
