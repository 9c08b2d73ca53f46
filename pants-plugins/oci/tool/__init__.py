"""Assembles container images out of files, with the standard library alone.

Knows nothing of Pants: each command of `python -m oci.tool` reads files, writes files, and gives the
same bytes on every machine. Runs on Python 3.9 (to unpack a toolchain) and later.
"""
