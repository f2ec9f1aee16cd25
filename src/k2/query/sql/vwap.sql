-- The VWAP of each partial bar by itself, in their order.
with unscaled as (
    select
        number,
        floor(turnover)::hugeint * 10000000000000000
            + ((turnover - floor(turnover))::decimal(17, 16) * 10000000000000000)::hugeint as t,
        floor(volume)::hugeint * 100000000
            + ((volume - floor(volume))::decimal(9, 8) * 100000000)::hugeint as v
    from {rows}
)
select {vwap} as vwap
from unscaled
order by number
