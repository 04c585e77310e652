"""The files of `launch/`, run with stand-ins for what a cluster has."""

import os
import re
import shlex
import subprocess
import sys
import time

import pytest
import yaml
from commands import ROOT, command

from mplug2_jax.contracts import exits

# Of the JobSet API (v1alpha2), of Job (batch/v1) and of Pod, the fields that a file may have; (...)
# is a list of such, {str} a map of texts.
CONTAINER = {
    "name": str, "image": str, "workingDir": str, "command": (str,), "args": (str,),
    "ports": ({"containerPort": int, "name": str},), "env": ({"name": str, "value": str},),
    "resources": {"limits": {str: (int, str)}}, "volumeMounts": ({"name": str, "mountPath": str},)}
POD = {"metadata": {"annotations": {str: str}, "labels": {str: str}}, "spec": {
    "restartPolicy": str, "terminationGracePeriodSeconds": int, "nodeSelector": {str: str},
    "serviceAccountName": str, "securityContext": {"fsGroup": int}, "containers": (CONTAINER,),
    "volumes": ({"name": str, "persistentVolumeClaim": {"claimName": str},
                 "emptyDir": {"medium": str}},)}}
JOB = {"spec": {
    "parallelism": int, "completions": int, "completionMode": str, "backoffLimit": int,
    "podFailurePolicy": {"rules": ({"action": str, "onExitCodes": {
        "containerName": str, "operator": str, "values": (int,)}},)}, "template": POD}}
JOBSET = {
    "apiVersion": str, "kind": str, "metadata": {"name": str, "annotations": {str: str}},
    "spec": {"failurePolicy": {"maxRestarts": int, "rules": (
                 {"name": str, "action": str, "onJobFailureReasons": (str,)},)},
             "network": {"enableDNSHostnames": bool, "subdomain": str},
             "replicatedJobs": ({"name": str, "replicas": int, "template": JOB},)}}


def put(path, text):
    """A program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
    return path


def start(name, folder, *arguments, **environment):
    """Runs a file of `launch/` where `folder/bin` has what a cluster has: its code and output."""
    done = subprocess.run(
        [ROOT / "launch" / name, *arguments], cwd=ROOT, text=True, capture_output=True, timeout=120,
        env=os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"} | environment)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("code", sorted(exits.MEANING) + [137])
def test_slurm_queues_again_what_may_end_better(tmp_path, code):
    put(tmp_path / "bin/srun", f'echo "srun $*"; exit {code}')
    put(tmp_path / "bin/scontrol", 'echo "scontrol $*"')
    given = dict(SLURM_JOB_ID="17", SLURM_CPUS_PER_TASK="12", PYTHON="python")
    ended, said = start("slurm.sh", tmp_path, "--config=a b", "--workdir=w", **given)
    assert ended == code and ("scontrol requeue 17" in said) == (code in exits.RESTART)
    assert "--cpus-per-task=12 python train.py --grace=100 --config=a b --workdir=w\n" in said
    _, said = start("slurm.sh", tmp_path, SLURM_RESTART_COUNT="100", **given)
    assert "scontrol" not in said  # not for ever


def test_slurm_s_header_is_read_by_sbatch():
    """Options stand before the first command; the grace ends before the time that is left."""
    text = (ROOT / "launch/slurm.sh").read_text()
    head = re.split(r"^(?!#|$)", text, maxsplit=1, flags=re.M)[0]
    options = " ".join(re.findall(r"^#SBATCH (.*)$", head, re.M)).split()
    assert len(re.findall("^#SBATCH", text, re.M)) == len(re.findall("^#SBATCH", head, re.M)) == 2
    assert {"--requeue", "--open-mode=append", "--signal=USR1@120"} <= set(options)
    (grace,) = re.findall(r"--grace=(\d+)", text)
    assert int(grace) < 120


@pytest.mark.slow
def test_a_slurm_step_of_two_tasks_finds_itself(tmp_path):
    """By JAX's own reading of Slurm's variables, which the stand-in sets as srun does."""
    job = 20_000 + os.getpid() % 4096
    put(tmp_path / "bin/srun", """
while [[ $1 == --* ]]; do shift; done
for task in 0 1; do
    SLURM_JOB_ID=NUMBER SLURM_STEP_NODELIST=localhost SLURM_NTASKS=2 SLURM_PROCID=$task \\
        SLURM_LOCALID=$task SLURM_STEP_NUM_NODES=1 "$@" & tasks+=($!)
done
for task in "${tasks[@]}"; do wait $task || code=$?; done
exit ${code:-0}""".replace("NUMBER", str(job)))
    # In place of `train.py`, what counts over processes.
    python = put(tmp_path / "python", f"cd {ROOT}; exec {shlex.quote(sys.executable)} "
                 "tests/hosts_script.py --counts='{\"a\": 2}' --join_timeout=60")
    own = {name: value for name, value in command(devices=1)["env"].items()
           if name in ("XLA_FLAGS", "PYTHONPATH")}
    code, said = start("slurm.sh", tmp_path, PYTHON=str(python), **own)
    assert code == 0, said
    assert said.count('[{}, {"a": 4}]') == 2


def test_a_tpu_pod_starts_on_all_hosts_and_again_after_a_loss(tmp_path):
    """Two hosts; the first time process ends with code 3, then with 4: somebody stopped it."""
    put(tmp_path / "bin/gcloud", """
printf '%s\\n' "${@:1:$#-1}" > $HOSTS/asked
for host in 0 1; do
    (cd $HOSTS/$host; HOME=$PWD bash -c "${@: -1:1}" "" ) || exit 1
done""".replace('"${@: -1:1}"', '"$(printf "%s" "${*: -1:1}" | sed s/^--command=//)"'))
    for host in "01":
        put(tmp_path / host / "mplug2_jax/.venv/bin/python", """
printf '%s\\n' "$@" >> ../asked
if [ -e ../once ]; then echo ended > ../ended; exit 4; fi
touch ../once; exit 3""")
    given = ["--config=configs/demo.py", '--config.optimizer.frozen=("^(a|b)/",)', "--workdir=a b"]
    code, said = start("tpu_vm.sh", tmp_path, *given, HOSTS=str(tmp_path), PAUSE="0",
                       TPU="slice", ZONE="here")
    assert code == 0, said
    deadline = time.monotonic() + 30
    while not all((tmp_path / host / "ended").exists() for host in "01"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    asked = (tmp_path / "asked").read_text().split("\n")
    assert {"tpu-vm", "ssh", "slice", "--zone=here", "--worker=all"} <= set(asked)
    for host in "01":
        lines = (tmp_path / host / "asked").read_text().splitlines()
        assert lines == 2 * ["train.py", *given]  # to the letter, twice
        assert (tmp_path / host / "train.log").exists()


def test_the_local_file_starts_the_launcher(tmp_path):
    python = put(tmp_path / "python", 'echo "$@"')
    _, said = start("local.sh", tmp_path, "--config=c", PYTHON=str(python), PROCESSES="2")
    assert said == "-m mplug2_jax.launch --processes=2 --devices=0 -- train.py --config=c\n"
    code, said = start("local.sh", tmp_path, PYTHON=str(python))
    assert code and "PROCESSES: how many" in said


def fits(value, schema, path="jobset"):
    """Raises AssertionError where a value is not of a schema, as `JOBSET`."""
    if isinstance(schema, dict) and str in schema:
        assert isinstance(value, dict), path
        for name, one in value.items():
            assert isinstance(one, schema[str]), f"{path}.{name}"
    elif isinstance(schema, dict):
        assert isinstance(value, dict) and value.keys() <= schema.keys(), (path, value)
        for name, one in value.items():
            fits(one, schema[name], f"{path}.{name}")
    elif isinstance(schema, tuple):
        assert isinstance(value, list), path
        for number, one in enumerate(value):
            fits(one, schema[0], f"{path}[{number}]")
    else:
        assert type(value) is schema, f"{path}: {value!r}"


def test_the_jobset_is_one():
    jobset = yaml.safe_load((ROOT / "launch/gke.yaml").read_text())
    fits(jobset, JOBSET)
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (rule,) = jobset["spec"]["failurePolicy"]["rules"]
    assert re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"])
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    # What the same command would end with again ends it; all others start together.
    (failure,) = job["podFailurePolicy"]["rules"]
    assert failure["onExitCodes"]["containerName"] == container["name"]
    assert set(failure["onExitCodes"]["values"]) == {
        *exits.MEANING} - {exits.DONE, *exits.RESTART}
    assert job["backoffLimit"] == 0 and pod["restartPolicy"] == "Never"
    assert job["parallelism"] == job["completions"]
    chips = container["resources"]["limits"]["google.com/tpu"]
    rows, columns = map(int, pod["nodeSelector"][
        "cloud.google.com/gke-tpu-topology"].split("x"))
    assert chips * job["parallelism"] == rows * columns
    image = (ROOT / "docker/tpu.Dockerfile").read_text()
    assert f"\nUSER {pod['securityContext']['fsGroup']}\n" in image
    assert f"\nWORKDIR {container['workingDir']}\n" in image
    (grace,) = [int(arg.partition("=")[2]) for arg in container["args"] if "--grace" in arg]
    assert grace < pod["terminationGracePeriodSeconds"]
    assert [*container["command"], container["args"][0]][1:] == ["train.py", "--config=CONFIG"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in pod["volumes"]}
    assert {"name": "memory", "mountPath": "/dev/shm"} in container["volumeMounts"]
    assert {"name": "memory", "emptyDir": {"medium": "Memory"}} in pod["volumes"]


@pytest.mark.parametrize("section, change", [
    ("spec", {"replicatedJob": []}), ("spec", {"failurePolicy": {"maxRestarts": "100"}}),
    ("metadata", {"name": 7})])
def test_a_jobset_that_is_none_is_found(section, change):
    jobset = yaml.safe_load((ROOT / "launch/gke.yaml").read_text())
    jobset[section] |= change
    with pytest.raises(AssertionError):
        fits(jobset, JOBSET)


def test_xla_knows_the_flags():
    """An unknown one ends every process where it begins."""
    flags = re.findall(r"--xla_\w+=\w+", (ROOT / "launch/slurm.sh").read_text())
    assert flags
    done = subprocess.run(
        [sys.executable, "-c", "import jax; print(jax.device_count())"], text=True,
        capture_output=True, timeout=120,
        env=os.environ | {"XLA_FLAGS": " ".join(flags), "JAX_PLATFORMS": "cpu"})
    assert done.returncode == 0 and done.stdout == "1\n", done.stderr
