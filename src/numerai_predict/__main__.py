"""`python3 -m numerai_predict`."""

import os
import sys
from contextlib import suppress
from typing import NoReturn

from numerai_predict.spawn import Spawned


def main() -> int:
    # The worker first; only questions about the flags need none.
    questions = {"-h", "--help", "--version"}
    spawned = None if questions & set(sys.argv) else Spawned()

    from numerai_predict import cli

    return cli.main(spawned=spawned)


def leave(code: int) -> NoReturn:
    """End the process as it is: what the model turned out not to need may still be being fetched.

    Python's own way out takes itself apart under the threads that do so: on an emulated processor
    one run in five crashed there, after its predictions were written.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody reads it any more
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(main())
