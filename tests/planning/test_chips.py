"""Peaks of chips by the names that JAX gives them."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest
from absl import logging
from marks import needs_libtpu

from mplug2_jax.planning import chips

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind, cores, peak", [
    ("TPU v2", 1, 23e12), ("TPU v3", 1, 61.5e12), ("TPU v4", 2, 275e12), ("TPU v4", 1, 137.5e12),
    ("TPU v5 lite", 1, 197e12), ("TPU v5e", 1, 197e12), ("TPU v5", 2, 459e12),
    ("TPU v5p", 2, 459e12), ("TPU v6 lite", 1, 918e12), ("TPU v6e", 1, 918e12),
    ("TPU7x", 1, 1153.5e12), ("TPU v7x", 1, 1153.5e12), ("TPU v6 lite", None, 918e12),
    ("NVIDIA A100-SXM4-80GB", None, 312e12), ("NVIDIA H100 80GB HBM3", None, 989.5e12),
    ("NVIDIA H100 PCIe", None, 756.5e12), ("NVIDIA H200", None, 989.5e12),
    ("NVIDIA B200", None, 2250e12), ("NVIDIA GB200", None, 2500e12), ("NVIDIA L4", None, 121e12),
    ("NVIDIA L40S", None, 362.05e12), ("NVIDIA A10G", None, 70e12),
])
def test_a_known_device_has_its_own_peak(kind, cores, peak):
    assert chips.peak_of(kind, cores) == pytest.approx(peak)


@pytest.mark.parametrize("kind, cores", [
    ("TPU v5 litest", 1), ("TPU v9", 1), ("TPU", 1), ("", None), ("NVIDIA H100", None),
    ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None), ("nvidia l4", None), ("NVIDIA B2000", None),
    ("cpu", None), ("TPU7x", None),  # a chip or a half of it
])
def test_of_another_there_is_none(kind, cores):
    assert chips.peak_of(kind, cores) is None


def test_all_devices_count_and_an_unknown_one_is_said_in_a_line(monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *args: said.append(text % args))
    for kind, cores, peak in (("TPU v2", 1, 8 * 23e12), ("NVIDIA GB300", None, 8 * 2500e12),
                              ("NVIDIA Z1", None, None)):
        found = SimpleNamespace(platform="gpu", device_kind=kind)
        if cores:
            found.num_cores = cores
        monkeypatch.setattr(jax, "devices", lambda found=found: [found] * 8)
        monkeypatch.setattr(jax, "device_count", lambda: 8)
        assert chips.peak_flops() == peak
    (line,) = said
    assert "'NVIDIA Z1'" in line and "no MFU" in line


@needs_libtpu
def test_libtpu_names_its_chips_as_the_table_does():
    """A chip's devices together have the peak of the chip, whichever cores they are."""
    code = ("from jax.experimental import topologies\n"
            "from mplug2_jax.planning.chips import peak_of\n"
            "from mplug2_jax.planning.topology import devices_of, parse_topology\n"
            "devices_of(parse_topology('v5e:2x2'))  # tells libtpu that this is no TPU host\n"
            "for name, options in (('v2:2x2', {}), ('v3:2x2', {}), ('v4:2x2x1', {}),\n"
            "                      ('v4:2x2x1', {'chip_config_name': 'megacore'}),\n"
            "                      ('v5e:2x2', {}), ('v5p:2x2x1', {}), ('v6e:2x2', {}),\n"
            "                      ('tpu7x:2x2x1', {})):\n"
            "    found = topologies.get_topology_desc(name, 'tpu', **options).devices\n"
            "    print(sum(peak_of(one.device_kind, one.num_cores) for one in found) / 4e12)\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          cwd=ROOT)
    assert [float(line) for line in done.stdout.split()] == pytest.approx(
        [46, 123, 275, 275, 197, 459, 918, 2307])
