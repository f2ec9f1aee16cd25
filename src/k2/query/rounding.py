"""Exact quotients in SQL, where "/" and `avg` would be floats."""


def half_even(dividend: str, divisor: str) -> str:
    """SQL of a quotient as decimal(18, 8), rounded half-even; null where the divisor is 0.

    Both are hugeints. The dividend counts in 0.00000001, the divisor must not be below 0.
    """
    by = f"nullif({divisor}, 0)"
    # Whole numbers are divided towards zero: below it, this is one too many.
    over = f"({dividend} % {by} < 0)::int"
    whole = f"({dividend} // {by} - {over})"
    rest = f"({dividend} % {by} + {over} * {divisor})"
    up = f"(2 * {rest} > {divisor} or (2 * {rest} = {divisor} and {whole} % 2 != 0))::int"
    return f"(({whole} + {up})::decimal(18, 0) * 0.00000001)::decimal(18, 8)"


def in_units(column: str) -> str:
    """SQL of a price or quantity as a hugeint of 0.00000001."""
    return f"({column}::decimal(28, 8) * 100000000)::hugeint"
