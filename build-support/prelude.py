# What every BUILD file may use.

# The Python versions that are built; each has a resolve in pants.toml, 3.11's being py311.
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def resolve_of(python):
    return "py" + python.replace(".", "")
