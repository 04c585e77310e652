"""What a run keeps of each start: `starts.jsonl`, and in `starts/` what a line is too short for.

A line has when, after which step, by which command, on what code, versions, devices and data, and
why the start before it ended. Files are named in it by what they hold, by their place in the work
folder, which may so be moved. Nothing of the environment is kept, for it has secrets.
"""

import hashlib
import json
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from mplug2_jax import launch, places
from mplug2_jax.contracts import exits, paths
from mplug2_jax.parallel import ending, hosts
from mplug2_jax.training.vigil import Vigil

STARTS, FOLDER = "starts.jsonl", "starts"  # of the work folder
ENDED = "ended.json"  # likewise, until the next start has read it
ROOT = Path(launch.__file__).parents[1]
LARGEST = 10 * 2 ** 20  # bytes of a diff that is kept
SECONDS = 30  # that Git may take


def record(workdir: Path, step: int, config: Mapping[str, Any], data: Mapping[str, str],
           mesh: Mapping[str, int], vigil: Vigil) -> None:
    """Writes the line of this start, and sees that its end is noted.

    Args:
      workdir: the work folder.
      step: after which it goes on.
      config: as plain values.
      data: fingerprints of what is read.
      mesh: devices of each axis.
      vigil: of the run: it knows the steps done.
    """
    if hosts.is_first():
        line = {"time": _time(), "step": step, "before": _before(workdir),
                "command": shlex.join([Path(sys.executable).name, *sys.argv]), **_code(workdir),
                "config": _kept(workdir, "config.json", _json(config)),
                "seed": config.get("seed"), "data": dict(data), "versions": _versions(),
                "devices": {"kind": jax.devices()[0].device_kind, "count": jax.device_count(),
                            "processes": jax.process_count(), "mesh": dict(mesh)},
                "host": hosts.this()}
        with places.named(workdir / STARTS):
            paths.add(workdir / STARTS, json.dumps(line))
        for path in _ends(workdir):
            path.unlink(missing_ok=True)

    def note(code: int, why: str) -> None:
        path = workdir / hosts.own_file(ENDED)
        paths.write(path, json.dumps({"time": _time(), "code": code, "meaning": exits.say(code),
                                      "why": why, "step": vigil.step}))

    ending.keep(note)


def _before(workdir: Path) -> dict[str, Any] | None:
    """How the start before this one ended; None where this is the first."""
    if not (workdir / STARTS).exists():
        return None
    for path in _ends(workdir):
        try:
            return json.loads(path.read_text())
        except (OSError, ValueError):
            continue
    return {"why": "killed, or its machine was lost: it wrote no end"}


def _ends(workdir: Path) -> list[Path]:
    """The files that say how it ended: that of process 0, then those of the others."""
    return [workdir / ENDED, *sorted(workdir.glob(f"{Path(ENDED).stem}.*.json"))]


def _code(workdir: Path) -> dict[str, Any]:
    """The commit, a diff of what differs from it, and a hash of each loaded file of code."""
    code = {"code": _kept(workdir, "code.json", _json(launch.code()))}
    if _git("rev-parse", "--show-toplevel") != f"{ROOT}\n".encode():
        return code | {"commit": None}
    commit, diff = _git("rev-parse", "HEAD"), _git(
        "diff", "HEAD", "--no-ext-diff", "--no-color", "--binary")
    found: dict[str, Any] = code | {"commit": commit.decode().strip() if commit else None}
    if diff and len(diff) <= LARGEST:
        found["diff"] = _kept(workdir, "diff.patch", diff)
    elif diff or diff is None:
        found["diff"] = "not kept: " + ("too large" if diff else "git failed")
    return found


def _git(*arguments: str) -> bytes | None:
    """What Git says of the project; None where it says nothing."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True,
                              timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _kept(workdir: Path, name: str, content: bytes) -> str:
    """Writes content under a name that is its own; gives the file's path in the work folder."""
    stem, suffix = name.split(".")
    path = Path(FOLDER) / f"{stem}-{hashlib.sha256(content).hexdigest()[:12]}.{suffix}"
    if not (workdir / path).exists():
        (workdir / FOLDER).mkdir(exist_ok=True)
        paths.write(workdir / path, content)
    return str(path)


def _versions() -> dict[str, str]:
    found = {name: metadata.version(name) for name in hosts.PACKAGES}
    for name in ("jax-cuda12-plugin", "jax-cuda13-plugin", "libtpu"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {"python": platform.python_version()} | found


def _json(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, indent=1, sort_keys=True).encode() + b"\n"


def _time() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
