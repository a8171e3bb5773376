"""`python -m mico_competition.cli` is `mico`."""

import sys

from mico_competition.cli import main

if __name__ == "__main__":
    sys.exit(main())
