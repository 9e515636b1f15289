"""`python -m evhands` is the command line tool."""

import sys

from evhands.cli import main

if __name__ == "__main__":
    sys.exit(main())
