-- What bars are made of, from partial bars alone.
select
    {keys},
    {start} as start,
    arg_min(open, {first}) as open,
    max(high) as high,
    min(low) as low,
    arg_max(close, {last}) as close,
    sum(volume) as volume,
    sum(trade_count)::bigint as trade_count,
    sum(turnover) as turnover
from {partial}
where {predicate}
group by all
