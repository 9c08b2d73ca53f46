# What every BUILD file may use, besides PYTHONS (3rdparty/python/pythons.py).


def resolve_of(python):
    return "py" + python.replace(".", "")


# How tests' programs are found, and how they find their engine, their cache and the package index.
MACHINE = (
    *("PATH", "HOME", "PYENV_ROOT", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "DOCKER_HOST"),
    *("UV_DEFAULT_INDEX", "UV_CACHE_DIR", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)
