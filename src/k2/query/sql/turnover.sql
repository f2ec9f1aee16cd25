-- What each symbol of an exchange traded: quantities, and what was paid for them, exactly.
select
    exchange,
    symbol,
    max(currency) as currency,
    count(*) as trades,
    sum(quantity)::decimal(38, 8) as volume,
    sum(price::decimal(28, 8) * quantity) as value
from {rows}
where {predicate}
group by all
order by exchange, symbol
