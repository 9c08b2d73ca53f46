# What every BUILD file may use.

# The Python versions that are built, as names of resolves (pants.toml).
PYTHONS = ("py310", "py311", "py312", "py313")
