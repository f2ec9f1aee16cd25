-- Some columns of records, in no order.
select {columns}
from {source}
where {predicate}
