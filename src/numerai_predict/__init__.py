"""Runs a pickled Numerai model on live data and hands in its predictions.

Start with `cli.py` (the flags) and `pipeline.py` (the steps); every other module is one step.
"""

__version__ = "0.1.0"
