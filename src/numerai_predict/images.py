# Derived from pyproject.toml by 'make lock'; do not edit.
IMAGES: tuple[tuple[int, int], ...] = ((3, 10), (3, 11), (3, 12), (3, 13))
