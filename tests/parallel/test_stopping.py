"""Processes that signals stop, and that stop by themselves where nothing goes on; no model in them.
"""

import signal
import subprocess
import time

import pytest
from commands import ROOT, command, seen
from forks import Fork
from processes import end, error_line, start_all

from mplug2_jax.contracts import exits

SCRIPT = "tests/stops_script.py"
AGAIN = 1.2  # seconds, more than `signals.TWICE`


def run(folder, *arguments):
    return Fork([SCRIPT, f"--workdir={folder}", *arguments], seen(1, ROOT / "tests"))


def read_until(process, line):
    """Reads what it prints up to a line."""
    assert f"{line}\n" in iter(process.stdout.readline, ""), line


def saved(folder):
    """Steps that the processes saved."""
    return [int(path.read_text()) for path in folder.glob("saved_*")]


def ended(process, timeout=30):
    (output,), (code,) = end([process], timeout)
    return output, code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_ends_a_run_after_the_step_that_is_saved(tmp_path, number):
    process = run(tmp_path)
    read_until(process, "step 3")
    process.send_signal(number)
    output, code = ended(process)
    steps = [int(line.split()[1]) for line in output.splitlines() if line.startswith("step")]
    steps.append(3)  # which is read
    assert code == exits.STOPPED and saved(tmp_path) == [max(steps)] and max(steps) < 20
    assert f"stopped by {number.name}, saved after step {max(steps)}" in output


def test_what_is_left_once_all_is_on_disk_may_take_longer_than_the_grace(tmp_path):
    """As the end of a log that is sent over a network."""
    process = run(tmp_path, "--grace=3", "--closing=5")
    read_until(process, "step 3")
    process.send_signal(signal.SIGTERM)
    output, code = ended(process)
    assert code == exits.STOPPED and len(saved(tmp_path)) == 1, output


@pytest.mark.parametrize("does, step", [("validates", 3), ("waits", 3)])
def test_it_leaves_a_validation_and_does_not_wait_for_data(tmp_path, does, step):
    process = run(tmp_path, f"--does={does}")
    read_until(process, f"step {step}")
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    assert ended(process)[1] == exits.STOPPED and saved(tmp_path) == [step]


def test_it_ends_while_it_compiles_and_before(tmp_path):
    """In a call of a library, where Python runs no handler."""
    for does, code in (("compiles", exits.STOPPED), ("starts", exits.by_signal(signal.SIGTERM))):
        process = run(tmp_path, f"--does={does}")
        read_until(process, "step 0")
        process.send_signal(signal.SIGTERM)
        output, found = ended(process)
        assert found == code and not saved(tmp_path) and "Traceback" not in output
        assert error_line(output).startswith("error: stopped by SIGTERM")


@pytest.mark.parametrize("arguments, said", [
    (("--saving=600",), "stopped at once by SIGTERM again"),
    (("--saving=600", "--grace=1"), "not saved in 1 s (--grace)")])
def test_a_second_signal_ends_it_at_once_and_so_does_the_time(tmp_path, arguments, said):
    process = run(tmp_path, *arguments)
    read_until(process, "step 3")
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)  # as one, for a launcher and a shell both pass it on
    if len(arguments) == 1:
        time.sleep(AGAIN)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
    output, code = ended(process)
    assert code == exits.by_signal(signal.SIGTERM) and said in error_line(output)
    assert not saved(tmp_path)


@pytest.mark.parametrize("does", ["steps", "validates"])
def test_processes_stop_at_the_same_step_whichever_is_told(tmp_path, does):
    processes = start_all(SCRIPT, f"--workdir={tmp_path}", f"--does={does}",
                          each=({"seconds": 0.05}, {"seconds": 0.08}, {"seconds": 0.11}), devices=1)
    for process in processes:
        read_until(process, "step 3")
    processes[1].send_signal(signal.SIGUSR1)
    outputs, codes = end(processes, timeout=60)
    assert codes == [exits.STOPPED] * 3, outputs
    steps = saved(tmp_path)
    assert len(steps) == 3 and len(set(steps)) == 1, steps
    assert all("stopped by SIGUSR1 to process 1" in output for output in outputs)


def test_processes_that_compile_end_together(tmp_path):
    processes = start_all(SCRIPT, f"--workdir={tmp_path}", "--does=compiles", each=({}, {}),
                          devices=1)
    for process in processes:
        read_until(process, "step 0")
    processes[1].send_signal(signal.SIGTERM)
    outputs, codes = end(processes, timeout=60)
    assert codes == [exits.STOPPED] * 2, outputs
    assert all("nothing to save" in error_line(output) for output in outputs)


def test_a_process_that_hangs_writes_what_it_waits_for(tmp_path):
    output, code = ended(run(tmp_path, "--does=hangs", "--stuck_after=1"))
    assert code == exits.STUCK
    assert "after step 3" in error_line(output) and "for the step" in error_line(output)
    written = (tmp_path / "stacks.txt").read_text()
    assert "after step 3" in written and "stops_script.py" in written  # where the main thread is
    assert written.count("Thread 0x") >= 2


def test_a_host_that_stands_still_is_seen_by_the_watchdog_of_the_other(tmp_path):
    """Before it counts as lost; process 0, which keeps the store that the other would tell."""
    processes = start_all(SCRIPT, f"--workdir={tmp_path}", "--does=hangs", "--stuck_after=1",
                          each=({}, {}), devices=1, lost_after=60)
    for process in processes:
        read_until(process, "step 3")
    processes[0].send_signal(signal.SIGSTOP)
    (output,), (code,) = end(processes[1:], timeout=60)
    processes[0].kill()
    assert code == exits.STUCK and "after step 3: process 1" in error_line(output)
    assert "stops_script.py" in (tmp_path / "stacks.1.txt").read_text()


def test_what_was_ignored_stays_so(tmp_path):
    """As Ctrl-C is for what a shell's script puts in the background."""
    shell = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]
    how = command(SCRIPT, f"--workdir={tmp_path}", path=ROOT / "tests")
    process = subprocess.Popen(**how | {"args": shell + how["args"]})
    read_until(process, "step 3")
    process.send_signal(signal.SIGINT)
    read_until(process, "step 9")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == exits.STOPPED and "stopped by SIGTERM" in output
