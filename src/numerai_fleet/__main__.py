"""`python3 -m numerai_fleet`."""

import sys

from numerai_fleet.cli import main

if __name__ == "__main__":
    sys.exit(main())
