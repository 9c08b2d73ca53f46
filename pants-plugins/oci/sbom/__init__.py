"""Lists what an image holds, as CycloneDX and as SPDX, with the standard library alone.

Reads the descriptions of an image and of its layers (`oci.tool`) and the lock of its wheels; never the
layers themselves. `python -m oci.sbom` gives the same bytes on every machine.
"""
