-- The newest entries of a ledger.
select *
from {rows}
order by {order}
limit $row_limit
