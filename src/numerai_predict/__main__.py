"""`python3 -m numerai_predict`."""

import sys

from numerai_predict.cli import main

if __name__ == "__main__":
    sys.exit(main())
