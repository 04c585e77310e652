"""Disks that fill."""

import contextlib
import os
import subprocess

import pytest


@contextlib.contextmanager
def small_disk(folder, size):
    """Mounts a disk of that many bytes in memory, if this user may."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.getuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted; another test injects the error")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
