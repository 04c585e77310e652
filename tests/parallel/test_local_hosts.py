"""Local checkpoints of two processes, each with a disk of its own; no model in them."""

import re
import shutil

import pytest
from local_walk import begin, digest, walk
from processes import end, start_all

from mplug2_jax.checkpoints.choice import stored

SCRIPT = "tests/local_script.py"
CROSSED, COPIED = "1,4,1", "2,2,1"  # each host has a half of the kernel; each has all of it


@pytest.fixture(scope="module")
def digests():
    values, found = begin(), {}
    for step in range(1, 10):
        values = walk(values, step)
        found[step] = digest(values)
    return found


def life(place, mesh=CROSSED, killed=0, wait=(True, False), wrong=0):
    """A life of the run: its outputs, and the folders of its hosts' disks.

    Where it is killed, those processes that wait are at the end of a save, the others within it.
    The second process saves other numbers of the step `wrong`.
    """
    each = [{"local": place / f"disk{number}", "waits": wait[number], "wrong": wrong * number}
            for number in range(2)]
    outputs, codes = end(start_all(SCRIPT, f"--workdir={place}/run", f"--mesh={mesh}",
                                   f"--killed={killed}", each=each, devices=2), timeout=300)
    assert codes == ([-9, -9] if killed else [0, 0]), outputs
    return outputs, [next(iter(place.glob(f"disk{number}/run-*/host-{number}")), None)
                     for number in range(2)]


def start_of(outputs):
    """Whence both went on: where it was, the step, the digest."""
    found = {re.search(r"^(local|shared) (\d+) (\w+)$", output, re.M).groups()
             for output in outputs}
    ((where, step, bits),) = found
    return where, int(step), bits


def test_the_newest_that_all_hosts_have_is_taken_and_copies_fill_a_lost_disk(tmp_path, digests):
    _, disks = life(tmp_path, killed=6, wait=(True, True))
    assert [stored(disk) for disk in disks] == [[6, 5], [6, 5]]

    # A damaged part of one host: the older one on both.
    shards = disks[1] / "6" / "shards" / "d" / "0"
    content = bytearray(shards.read_bytes())
    content[len(content) // 2] ^= 4
    shards.write_bytes(content)
    outputs, disks = life(tmp_path, killed=8)
    assert start_of(outputs) == ("local", 5, digests[5])
    assert all("step 6: host-1: params/mlp/" in output for output in outputs)
    assert stored(disks[0]) == [8, 7] and 7 in stored(disks[1])  # whatever became of 8 there

    # Of another mesh: the shared one.
    outputs, _ = life(tmp_path, mesh=COPIED, killed=6, wait=(True, True), wrong=6)
    assert start_of(outputs) == ("shared", 2, digests[2])
    assert all("is of another mesh or of other arrays" in output for output in outputs)

    # Of copies that both have, one is another on the second host alone: the older one on both.
    outputs, disks = life(tmp_path, mesh=COPIED, killed=6)
    assert start_of(outputs) == ("local", 5, digests[5])
    assert all("step 6: params: scale is not what its checksum says" in output
               for output in outputs)

    # A host in the place of another, with an empty disk: all from the copies of the one that
    # stayed; and a good end leaves nothing.
    assert stored(disks[0])[0] == 6
    shutil.rmtree(tmp_path / "disk1")
    outputs, disks = life(tmp_path, mesh=COPIED)
    assert start_of(outputs) == ("local", 6, digests[6])
    assert all(f"end {digests[9]}" in output for output in outputs) and disks == [None, None]
