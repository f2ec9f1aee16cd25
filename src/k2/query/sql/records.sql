-- Records of one kind, in total order.
select {columns}
from {rows}
where {predicate}
order by {order}
limit $row_limit
