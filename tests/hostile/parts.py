"""What models of several attacks are made of; pickled by value with them."""

from __future__ import annotations


def good(live_features):
    """Predictions that Numerai would accept."""
    import numpy as np
    import pandas as pd

    values = np.linspace(0, 1, len(live_features))
    return pd.DataFrame({"prediction": values}, live_features.index)


def system_calls():
    """A function that makes a system call: returns its result, or the name of its error."""
    import ctypes
    import errno

    library = ctypes.CDLL(None, use_errno=True)

    def call(number, *arguments):
        # All 64 bits of a number: the kernel may look at fewer than a filter does.
        words = [ctypes.c_ulong(a & (1 << 64) - 1) if isinstance(a, int) else a for a in arguments]
        result = library.syscall(ctypes.c_long(number), *words)
        return errno.errorcode[ctypes.get_errno()] if result == -1 else result

    return call


class AtLoad:
    """Pickled, this runs a function while it is being loaded."""

    def __init__(self, function):
        self.function = function

    def __reduce__(self):
        return self.function, ()
