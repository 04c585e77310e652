"""A TPU or a GPU that JAX would not use is found without JAX, and named with the line to run."""

import os
import subprocess
import sys

import pytest
from commands import ROOT

from mplug2_jax.parallel import accelerators

GOOGLE = "0x1ae0"


def pci(root, address, vendor, kind):
    """A device on the PCI bus, as Linux shows it."""
    folder = root / "sys/bus/pci/devices" / address
    folder.mkdir(parents=True)
    (folder / "vendor").write_text(f"{vendor}\n")
    (folder / "class").write_text(f"{kind}\n")


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.fixture
def no_smi(monkeypatch, tmp_path):
    """No `nvidia-smi` on the path, and nothing that hides GPUs."""
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize("files", [("dev/accel0", "dev/accel1"), ("dev/vfio/0", "dev/vfio/vfio")])
def test_chips_with_a_device_file_are_a_tpu(no_smi, tmp_path, files):
    pci(tmp_path, "0000:00:03.0", GOOGLE, "0x020000")  # the network card of a virtual machine
    pci(tmp_path, "0000:00:04.0", GOOGLE, "0x010802")  # its disk
    for file in files:
        touch(tmp_path / file)
    assert accelerators.find(tmp_path) is None
    pci(tmp_path, "0000:00:05.0", GOOGLE, "0xff0000")
    pci(tmp_path, "0000:00:06.0", GOOGLE, "0xff0000")
    assert accelerators.find(tmp_path) == ("TPU", "chips on the PCI bus: 2", "tpu")


def test_chips_that_nothing_can_open_and_accelerators_of_others_are_no_tpu(no_smi, tmp_path):
    pci(tmp_path, "0000:00:05.0", GOOGLE, "0xff0000")
    touch(tmp_path / "dev/vfio/vfio")  # it is there on machines without any
    assert accelerators.find(tmp_path) is None
    other = tmp_path / "other"
    pci(other, "0000:00:05.0", "0x8086", "0x120000")
    touch(other / "dev/accel0")
    assert accelerators.find(other) is None


@pytest.mark.parametrize("driver, extra", [("580.82.07", "cuda13"), ("570.10", "cuda12"),
                                           ("", "cuda13")])
def test_the_driver_says_which_gpu_there_is(no_smi, tmp_path, monkeypatch, driver, extra):
    folder = tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0"
    folder.mkdir(parents=True)
    (folder / "information").write_text("Model: \t\t NVIDIA L4\nIRQ: 16\n")
    if driver:
        touch(tmp_path / "sys/module/nvidia/version")
        (tmp_path / "sys/module/nvidia/version").write_text(f"{driver}\n")
    found = accelerators.find(tmp_path)
    assert found.kind == "GPU" and found.extra == extra
    assert found.what == "1 x NVIDIA L4" + f", driver {driver}" * bool(driver)
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert accelerators.find(tmp_path) is None


def checked(tmp_path, smi=None, platforms=None):
    """What `check` ends with in a process whose path has this `nvidia-smi`."""
    environment = {key: value for key, value in os.environ.items()
                   if key not in ("JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES")}
    if smi is not None:
        path = tmp_path / "nvidia-smi"
        path.write_text(f"#!/bin/sh\n{smi}\n")
        path.chmod(0o755)
    environment |= {"PATH": f"{tmp_path}{os.pathsep}/bin", "PYTHONPATH": str(ROOT)}
    if platforms is not None:
        environment["JAX_PLATFORMS"] = platforms
    code = ("from pathlib import Path\nfrom mplug2_jax.parallel import accelerators\n"
            f"try: accelerators.check(Path({str(tmp_path)!r}))\n"
            "except ValueError as error: print(error)\n"
            "else: print(accelerators.describe())\n")
    done = subprocess.run([sys.executable, "-c", code], env=environment, text=True,
                          capture_output=True)
    assert done.returncode == 0 and done.stdout.count("\n") == 1, done.stderr
    return done.stdout


TWO = ("case $1 in *name,driver_version) printf "
       "'NVIDIA H200, 570.1\\nNVIDIA H200, 570.1\\n';; esac")


def test_a_gpu_that_jax_would_not_use_ends_the_run(tmp_path):
    said = checked(tmp_path, TWO)
    assert said.startswith("there is a GPU in this machine (2 x NVIDIA H200, driver 570.1), but "
                           "JAX would use the CPU: run pip install -r requirements/cuda12.txt; ")
    assert "JAX_PLATFORMS=cpu takes the CPU" in said
    assert (ROOT / "requirements/cuda12.txt").exists()


@pytest.mark.parametrize("smi, platforms", [
    (TWO, "cpu"), ("echo No devices were found; exit 6", None), (None, None)])
def test_the_cpu_is_no_error_where_it_was_asked_for_or_there_is_no_other(tmp_path, smi, platforms):
    said = checked(tmp_path, smi, platforms)
    assert "backend cpu, cpu; devices: 8; processes: 1; hosts: 1" in said


@pytest.mark.parametrize("platforms, smi, said", [
    ("cuda", TWO, "JAX has no package for it: run pip install -r requirements/cuda12.txt"),
    ("cuda,cpu", None, "JAX would use the CPU: run pip install -r requirements/cuda13.txt"),
    ("neuron", None, "Unable to initialize backend 'neuron'")])
def test_what_was_asked_for_and_is_not_there_is_one_line(tmp_path, platforms, smi, said):
    line = checked(tmp_path, smi, platforms)
    assert line.startswith(f"JAX_PLATFORMS={platforms}: {said}")
    assert line.endswith("JAX_PLATFORMS=cpu takes the CPU\n")


@pytest.mark.parametrize("extra, installed, said", [
    ("cuda13", (), "run pip install -r requirements/cuda13.txt; "),
    ("cuda13", ("jax_cuda13_plugin",), "jax_cuda13_plugin is installed, and JAX_PLATFORMS=cuda "),
    ("cuda13", ("jax_cuda12_plugin",), "jax_cuda12_plugin is installed, and JAX_PLATFORMS=cuda "),
    ("cuda12", ("jax_cuda12_plugin",), "jax_cuda12_plugin is installed, and JAX_PLATFORMS=cuda "),
    ("cuda12", ("jax_cuda13_plugin",), "jax_cuda13_plugin needs a driver from 580 on: in a new "
                                       "environment, run pip install -r requirements/cuda12.txt; "),
    ("tpu", ("jax_cuda13_plugin",), "run pip install -r requirements/tpu.txt; "),
    ("tpu", ("libtpu",), "libtpu is installed, and JAX_PLATFORMS=tpu "),
    ("", (), "")])
def test_what_is_installed_is_not_to_be_installed_again(monkeypatch, extra, installed, said):
    monkeypatch.setattr(accelerators.importlib.util, "find_spec",
                        lambda name: name in installed or None)
    assert accelerators._what_to_do(extra).startswith(said)
    assert accelerators._what_to_do(extra).endswith("JAX_PLATFORMS=cpu takes the CPU")
