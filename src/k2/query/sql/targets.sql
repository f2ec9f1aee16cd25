-- Which corrections have a trade that they are about.
select w.number
from {rows}
join {wanted} w
    on w.symbol = rows.symbol
    and w.exchange = rows.exchange
    and w.exchange_date = rows.exchange_date
    and w.id_space = rows.id_space
    and w.trade_id = case when rows.occurrence is null then rows.trade_id end
union
select w.number
from {rows}
join {wanted} w
    on w.symbol = rows.symbol
    and w.exchange = rows.exchange
    and w.exchange_date = rows.exchange_date
    and w.target_log_id = rows.log_id
    and w.target_partition = rows.log_partition
    and w.target_offset = rows.log_offset
where rows.occurrence is not null or rows.trade_id is null
