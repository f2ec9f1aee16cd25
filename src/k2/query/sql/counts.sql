-- How many rows each symbol of an exchange has, and from when to when; by file, where files are named.
select {file} symbol, exchange, count(*) as rows, min({time}) as first, max({time}) as last
from {rows}
group by all
