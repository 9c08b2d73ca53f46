"""What the filter does is shown by tests/hostile; here, that it can be made for each architecture."""

import ctypes
import os
import re

import pytest

from numerai_predict import seccomp

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_* of linux/audit.h


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_filter_of_an_architecture(name, monkeypatch, tmp_path):
    class Exported(seccomp._Filter):
        """Written down in libseccomp's readable form instead of loaded."""

        def __init__(self):
            super().__init__()
            call, token = self.library, ctypes.c_uint32(ARCHITECTURES[name])
            native = call.seccomp_arch_native() & 0xFFFFFFFF
            if native != token.value:
                assert call.seccomp_arch_add(self.context, token) == 0
                assert call.seccomp_arch_remove(self.context, ctypes.c_uint32(native)) == 0

        def load(self):
            with open(tmp_path / "filter", "w") as file:
                assert self.library.seccomp_export_pfc(self.context, file.fileno()) == 0

    monkeypatch.setattr(seccomp, "_Filter", Exported)
    seccomp.install(os.getpid(), [os.getpid()])
    text = (tmp_path / "filter").read_text()
    assert f"filter for arch {name}" in text
    filtered = set(re.findall(r'filter for syscall "(\w+)"', text))
    assert {"socket", "socketpair", "ptrace", "process_vm_readv", "io_uring_setup"} <= filtered
    assert {"kill", "tgkill", "clone", "clone3", "setsid", "fcntl", "ioctl"} <= filtered
    assert not {"read", "write", "mmap", "futex", "execve"} & filtered
