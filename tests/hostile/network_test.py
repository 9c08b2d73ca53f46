"""A model reaches nobody over any network."""

import platform

import pytest
from hostile.parts import system_calls


def tries_sockets(live_features):
    import socket
    import urllib.request

    done: list[object] = []
    families = ("INET", "INET6", "NETLINK", "PACKET", "VSOCK", "BLUETOOTH", "ALG", "CAN", "TIPC")
    for family in families:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
            try:
                socket.socket(getattr(socket, f"AF_{family}", 99), kind)
                done.append((family, kind))
            except PermissionError:
                pass
    for way in (
        lambda: socket.socketpair(socket.AF_INET),
        lambda: socket.getaddrinfo("numer.ai", 443),
        lambda: socket.create_connection(("127.0.0.1", 80)),
        lambda: urllib.request.urlopen("http://127.0.0.1"),
    ):
        try:
            done.append(way())
        except OSError:
            pass
    raise ValueError(f"did {done}")


def test_sockets_are_refused(attack):
    assert "ValueError: did []" in attack(tries_sockets, code=1).log


def fetches(live_features):
    import urllib.request

    urllib.request.urlopen("http://127.0.0.1:9/")


@pytest.mark.places("docker")
def test_the_message_says_why(attack):
    done = attack(fetches, code=1)
    assert "Operation not permitted" in done.log or "PermissionError" in done.log


def calls(*arguments):
    def model(live_features):
        raise ValueError(f"it returned {system_calls()(*arguments)}")

    return model


@pytest.mark.skipif(platform.machine() != "x86_64", reason="system calls by their numbers")
@pytest.mark.places("docker-hardened")
@pytest.mark.parametrize(
    "arguments, code, says",
    [
        ((41, 1 << 32 | 2, 1, 0), 1, "it returned EPERM"),  # socket
        ((41, 1 << 32 | 1, 1, 0), 1, "it returned EPERM"),
        ((425, 8, 0), 1, "it returned ENOSYS"),  # io_uring_setup
        ((0x40000000 | 41, 2, 1, 0), 5, "SIGSYS"),  # x32
    ],
    ids=["upper bits", "upper bits, local", "io_uring", "x32"],
)
def test_raw_system_calls(arguments, code, says, attack):
    assert says in attack(calls(*arguments), code=code).log


def calls_as_i386(live_features):
    import ctypes
    import mmap

    # mov eax, 359 (socket); mov ebx, 2; mov ecx, 1; xor edx, edx; int 0x80; ret
    code = bytes.fromhex("53 b867010000 bb02000000 b901000000 31d2 cd80 5b c3")
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    raise ValueError(f"it returned {function()}")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="i386 is an ABI of x86_64")
@pytest.mark.places("docker-hardened")
def test_the_other_abi(attack):
    done = attack(calls_as_i386, code=5)
    assert "SIGSYS" in done.log or "SIGSEGV" in done.log  # where the kernel has no i386
