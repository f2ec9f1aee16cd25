"""`python -m k2` is `k2`."""

from k2.cli.main import main

main()
