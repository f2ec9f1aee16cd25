-- What was added: rows of each symbol at each exchange, from when to when, and how many of them are
-- late: of a day before the one on which the first state was.
with added as (
    select symbol, exchange, {time} as moment, exchange_date
    from {rows}
    where {predicate}
)
select
    added.symbol,
    added.exchange,
    count(*) as rows,
    min(added.moment) as first_timestamp,
    max(added.moment) as last_timestamp,
    count(*) filter (added.exchange_date < days.day) as late
from added
left join {days} on days.exchange = added.exchange
group by added.symbol, added.exchange
