"""`python3 -m numerai_predict`."""

import sys

from numerai_predict.spawn import Spawned


def main() -> int:
    # The worker first; only questions about the flags need none.
    questions = {"-h", "--help", "--version"}
    spawned = None if questions & set(sys.argv) else Spawned()

    from numerai_predict import cli

    return cli.main(spawned=spawned)


if __name__ == "__main__":
    sys.exit(main())
