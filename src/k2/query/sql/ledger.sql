-- The newest entries of a ledger.
select *
from {rows}
where {wanted}
order by {order}
limit $row_limit
