-- Means, exactly: of each group the sum of value * weight, by the sum of weights times `divisor`.
-- It is rounded half-even in whole numbers, since "/" would be a float.
with summed as (
    select
        number,
        count(*) as count,
        sum(weight) as weight,
        sum(value::decimal(20, 8) * weight::decimal(18, 8)) as total
    from {samples}
    where value is not null and weight > 0
    group by number
),
unscaled as (
    select
        *,
        floor(total)::hugeint * 10000000000000000
            + ((total - floor(total))::decimal(17, 16) * 10000000000000000)::hugeint as t,
        (floor(weight)::hugeint * 100000000
            + ((weight - floor(weight))::decimal(9, 8) * 100000000)::hugeint) * $divisor as v
    from summed
),
divided as (
    select
        *,
        t // nullif(v, 0) - (t % nullif(v, 0) < 0)::int as q,
        t % nullif(v, 0) + (t % nullif(v, 0) < 0)::int * v as r
    from unscaled
)
select
    number,
    count,
    weight::decimal(38, 8) as weight,
    ((q + (2 * r > v or (2 * r = v and q % 2 != 0))::int)::decimal(18, 0) * 0.00000001)
        ::decimal(18, 8) as mean
from divided
order by number
