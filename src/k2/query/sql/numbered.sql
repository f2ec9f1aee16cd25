-- Trades, each with the number of the bar that it is in: the running total of its exchange date
-- before it, in whole sizes of a bar.
(
    select *, (done - amount) // $size as number
    from (
        select
            *,
            sum(amount) over (
                partition by symbol, exchange, exchange_date
                order by {place}
                rows unbounded preceding
            ) as done
        from (
            select
                symbol,
                exchange,
                exchange_date,
                timestamp,
                timestamp_nanos,
                log_partition,
                log_offset,
                price,
                quantity,
                {amount} as amount
            from {rows}
            where {predicate}
        )
    )
) as rows
