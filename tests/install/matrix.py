"""The tests by several Pythons: the first with the pinned set, later ones with the newest of all.

    python tests/install/matrix.py 3.11 3.12 3.13 [-- ARGUMENTS OF PYTEST]

A Python that is not there is left out. Each has its own environment, `.venv-3.12`; what is newest
is what is newest when it is run. Ends with code 1 where a test failed, or no Python was there.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).parent / "uv"
ARGUMENTS = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder", "-m", "not long")
PACKAGES = ("jax", "flax", "numpy", "av", "orbax-checkpoint")


def main(arguments: list[str]) -> int:
    """Runs the tests by each of the Pythons; gives the exit code."""
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    versions, more = arguments[:cut], arguments[cut + 1:]
    lines, codes = [], []
    for version in versions:
        python = find(version)
        if python is None:
            lines.append(f"Python {version}: not here")
            continue
        inside = install(version, python, pinned=version == versions[0])
        done = subprocess.run([inside, "-m", "pytest", *ARGUMENTS, *more], cwd=ROOT, check=False)
        codes.append(done.returncode)
        lines.append(f"Python {version}, {held(inside)}: "
                     + ("passed" if done.returncode == 0 else f"failed ({done.returncode})"))
    print("\n".join(lines))
    return int(not codes or any(codes))


def find(version: str) -> Path | None:
    """An interpreter of a version, on the path or pyenv's, that starts."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    on_path = shutil.which(f"python{version}")
    for path in [*([Path(on_path)] if on_path else []),
                 *sorted(pyenv.glob(f"versions/{version}.*/bin/python"), reverse=True)]:
        if subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:
            return path
    return None


def install(version: str, python: Path, pinned: bool) -> Path:
    """An environment with all that the tests need; gives its interpreter."""
    folder = ROOT / f".venv-{version}"
    inside = folder / "bin" / "python"
    if not inside.exists():
        run(UV, "venv", "--no-python-downloads", "--python", python, folder)
    wanted = (["-r", "requirements/dev.txt", "--require-hashes"] if pinned else
              ["-r", "pyproject.toml", "--extra", "dev", "--group", "train", "--upgrade"])
    run(UV, "pip", "install", "--python", inside, *wanted)
    return inside


def held(python: Path) -> str:
    """The versions that an environment has of what moves most."""
    code = ("import sys, importlib.metadata as m; "
            "print(', '.join(f'{name} {m.version(name)}' for name in sys.argv[1:]))")
    return run(python, "-c", code, *PACKAGES).strip()


def run(*arguments: object) -> str:
    """What a command printed; raises where it did not end well."""
    return subprocess.run([*map(str, arguments)], cwd=ROOT, check=True, text=True,
                          stdout=subprocess.PIPE).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
