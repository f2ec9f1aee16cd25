"""One view over history and tail, and every question that is asked of it."""
