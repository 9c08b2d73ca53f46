# What every BUILD file may use, besides PYTHONS (3rdparty/python/pythons.py).


def resolve_of(python):
    return "py" + python.replace(".", "")
