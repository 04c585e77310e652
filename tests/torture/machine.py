"""What machines do to a run: full disks, rights that are gone, damaged files, hosts that stop.

    PYTHONPATH=.:tests:tests/torture python tests/torture/machine.py /tmp/machine

Each function trains in small, and compares what is left at the end with a run that nothing befell.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import stops
from commands import ROOT, command, run
from processes import end, start_all, wait_for

from mplug2_jax.checkpoints import manifest
from mplug2_jax.checkpoints.choice import stored
from mplug2_jax.contracts import exits

STEPS, EVERY, HALF = 120, 20, 60
ALL = STEPS // EVERY  # checkpoints
NOBODY = 65534
OTHER = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


def full_disks(folder, rooms=(0.3, 1.4, 2.6, 3.1)):
    """Disks in memory that fill up while the run saves: of so many times a checkpoint's bytes.

    Only root may mount them; `tests/checkpoints/test_saving.py` injects the error as well.

    Returns:
      `disks`; `untold`: runs that did not end in one line with code 2; `lost`: checkpoints that
      were whole before; `half` ones that are left; `differing` arrays, where the run goes on once
      there is room.
    """
    folder = Path(folder)
    data, straight = _straight(folder)
    saved = straight / "checkpoints" / str(STEPS)
    size = sum(path.stat().st_blocks * 512 for path in saved.rglob("*"))
    counts = dict(disks=0, untold=0, lost=0, half=0, differing=0)
    for number, room in enumerate(rooms):
        disk = folder / f"disk_{number}"
        disk.mkdir()
        # Logs and the record of the start need room before the first checkpoint does.
        with _mounted(disk, int(room * size) + 256 * 1024):
            workdir = disk / "run"
            output = run(*_saving(data, workdir, keep=ALL), status=exits.WRONG, path=ROOT / "tests")
            told = _told(output, "no space left on device")
            newest = re.search(r"newest good checkpoint is still step (\d+)$", told)
            there = {path.name: path for path in (workdir / "checkpoints").iterdir()}
            whole = range(EVERY, int(newest[1]) + 1 if newest else 0, EVERY)
            counts["disks"] += 1
            counts["untold"] += not told
            counts["lost"] += len(set(map(str, whole)) - there.keys())
            counts["half"] += sum(not name.isdigit() or bool(manifest.damage(path))
                                  for name, path in there.items())
            moved = shutil.copytree(workdir, folder / f"moved_{number}")
        run(*_saving(data, moved), path=ROOT / "tests")
        counts["differing"] += len(stops.differing(straight, moved))
    return counts


@contextlib.contextmanager
def _mounted(folder, size):
    assert not subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
                              ).returncode, "no tmpfs can be mounted here"
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def other_users(folder):
    """The run goes on as a user without rights: to its folder, its checkpoints, soon to neither.

    Returns:
      `tries`; `untold`: that did not end in one line with code 2; `changed`: after which the
      checkpoints were others; `differing` arrays, where the run goes on with its rights.
    """
    folder = Path(folder)
    assert not subprocess.run([*OTHER, "test", "-r", __file__]).returncode, (
        "this user cannot become another one, or that one may not read this repository")
    data, straight = _straight(folder)
    counts = dict(tries=0, untold=0, changed=0, differing=0)
    for shut in ("all", "checkpoints", "later"):
        workdir = _half(straight, folder / shut)
        for path in [workdir, *workdir.rglob("*")]:
            shutil.chown(path, NOBODY, NOBODY)
        checkpoints = workdir / "checkpoints"
        before = _content(checkpoints)
        if shut != "later":
            shutil.chown(workdir if shut == "all" else checkpoints, 0, 0)
        process = subprocess.Popen(**_as_nobody(_saving(data, workdir)))
        if shut == "later":
            wait_for(lambda log=workdir: HALF < stops.logged(log)[-1] < STEPS, [process])
            shutil.chown(checkpoints, 0, 0)
        output, _ = process.communicate(timeout=600)
        counts["tries"] += 1
        counts["untold"] += not (process.returncode == exits.WRONG
                                 and _told(output, "permission denied", "cannot be written to"))
        counts["changed"] += shut != "later" and _content(checkpoints) != before
        run(*_saving(data, workdir), path=ROOT / "tests")
        counts["differing"] += len(stops.differing(straight, workdir))
    return counts


def _as_nobody(arguments):
    how = command(*arguments, path=ROOT / "tests")
    return how | {"args": [*OTHER, *how["args"]]}


def damages(folder):
    """The newest checkpoint is damaged, each way in turn, and the run goes on.

    Returns:
      `damaged`; `taken`: where it went on from that one; `unnamed`: where no warning says what is
      damaged; `differing` arrays at the end.
    """
    folder = Path(folder)
    data, straight = _straight(folder)
    counts = dict(damaged=0, taken=0, unnamed=0, differing=0)
    for name, spoil in SPOILS.items():
        workdir = _half(straight, folder / name)
        newest = workdir / "checkpoints" / str(HALF)
        spoil(newest)
        output = run(*_saving(data, workdir), path=ROOT / "tests")
        counts["damaged"] += 1
        counts["taken"] += f"going on from step {HALF - EVERY} of" not in output
        counts["unnamed"] += f"{newest} is damaged and not used: " not in output
        counts["differing"] += len(stops.differing(straight, workdir))
    return counts


def _largest(folder):
    return max((path for path in folder.rglob("*") if path.is_file()),
               key=lambda path: path.stat().st_size)


def _flip(folder):
    path = _largest(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


SPOILS = {
    "flipped_byte": _flip,
    "missing_file": lambda folder: _largest(folder).unlink(),
    "short_file": lambda folder: os.truncate(_largest(folder), 1000),
    "truncated_manifest": lambda folder: os.truncate(folder / "manifest.json", 100),
    "missing_manifest": lambda folder: (folder / "manifest.json").unlink(),
}


def stopped_hosts(folder, patience=15):
    """SIGSTOP to one of two processes, each in turn; then both are started again.

    Seen once by the lack of steps (`--stuck_after`), once by the lack of signs of life
    (`--lost_after`).

    Returns:
      `stopped`; `unseen`: where the other did not end with the code that is documented; `untold`:
      not in one line; `differing` arrays, and `lost` steps, at the end.
    """
    folder = Path(folder)
    data, straight = _straight(folder, processes=2)
    counts = dict(stopped=0, unseen=0, untold=0, differing=0, lost=0)
    for stuck, code in ((True, exits.STUCK), (False, exits.LOST)):
        for number in (0, 1):
            workdir = folder / f"{'stuck' if stuck else 'lost'}_{number}"
            limits = dict(stuck_after=patience, lost_after=600) if stuck else dict(
                stuck_after=600, lost_after=patience)
            running = start_all(*_saving(data, workdir), each=({}, {}), devices=2, **limits)
            # Between two saves, for which more patience is had than for a step.
            wait_for(lambda log=workdir: (stops.logged(log) or [0])[-1] >= HALF + 3, running)
            running[number].send_signal(signal.SIGSTOP)
            (output,), (found,) = end([running[1 - number]], timeout=10 * patience)
            running[number].kill()
            counts["stopped"] += 1
            counts["unseen"] += found != code
            # Of what it waits for, the step or a save, where that is made together; or who is lost.
            counts["untold"] += not _told(output, *(("for the ", "for a save") if stuck else
                                                    (f"process {number} (",)))
            outputs, codes = end(start_all(*_saving(data, workdir), each=({}, {}), devices=2))
            assert not any(codes), outputs[0][-5000:]
            counts["lost"] += stops.logged(workdir) != list(range(1, STEPS + 1))
            counts["differing"] += len(stops.differing(straight, workdir))
    return counts


def _saving(data, workdir, keep=3):
    """A run that saves now and then."""
    return stops.train(data, workdir, f"--config.optimizer.steps={STEPS}",
                       f"--config.checkpoint_every={EVERY}", f"--config.keep_checkpoints={keep}")


def _straight(folder, processes=1):
    """The data, and the work folder of a run that nothing befell and that has all checkpoints.

    It lies beside `folder`, for all trials that it is compared with.
    """
    folder.chmod(0o755)
    data, workdir = stops.prepare(folder / "data"), folder.parent / f"straight_{processes}"
    arguments = _saving(data, workdir, keep=ALL)
    if (workdir / "checkpoints" / str(STEPS)).exists():
        pass
    elif processes == 1:
        run(*arguments, path=ROOT / "tests")
    else:
        outputs, codes = end(start_all(*arguments, each=({},) * processes, devices=2))
        assert not any(codes), outputs[0][-5000:]
    return data, workdir


def _half(straight, workdir):
    """A copy of that run as it was after `HALF` steps; its logs are cut as it goes on."""
    shutil.copytree(straight, workdir)
    for step in stored(workdir / "checkpoints"):
        if step > HALF:
            shutil.rmtree(workdir / "checkpoints" / str(step))
    return workdir


def _told(output, *reasons):
    """The one line that says why, by one of the reasons; "" where there is none, or a trace."""
    lines = [line for line in output.splitlines() if line.startswith("error:")]
    said = len(lines) == 1 and any(reason in lines[0].lower() for reason in reasons)
    return lines[0] if said and "Traceback" not in output else ""


def _content(folder):
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*")) if path.is_file()}


if __name__ == "__main__":
    for trial in (full_disks, other_users, damages, stopped_hosts):
        place = Path(sys.argv[1]) / trial.__name__
        place.mkdir(parents=True)
        (place / "data").symlink_to(stops.prepare(place.parent / "data"))
        print(trial.__name__, json.dumps(trial(place)), flush=True)
