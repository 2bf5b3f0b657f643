"""`python -m budc` is the command `budc`, with the Python that is named."""

import sys

from budc.cli import main

if __name__ == "__main__":
    sys.exit(main())
