"""Runs a pickled Numerai model on live data and hands in its predictions.

Start with `launcher.py` (the steps of a run) and `worker.py` (what becomes of the model).
"""

__version__ = "1.0.0"
