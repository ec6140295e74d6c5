"""`python -m clcr_edge`."""

from clcr_edge.cli import main

main()
