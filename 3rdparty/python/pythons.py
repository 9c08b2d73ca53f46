# Derived from pyproject.toml by 'make lock'; do not edit.
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
TABULAR_LAYERS = ("predictor", "arrays", "arrow", "polars", "numba", "boosting", "catboost", "statistics", "plots", "tabular-rest",)
FULL_LAYERS = ("nvidia", "torch", "tensorflow", "jax", "full-rest",)
