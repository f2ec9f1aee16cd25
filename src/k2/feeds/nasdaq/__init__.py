"""Nasdaq's TotalView-ITCH 5.0: its messages as columns, and the orders that they speak of."""
