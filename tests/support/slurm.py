"""A stand-in for Slurm: sbatch and what belongs to it, which run job arrays on this machine.

sbatch <script>         runs the tasks of the array in the background, all at once
srun <options> <line>   runs a line; sends it the warning that `install` asks for, if any
scontrol requeue <id>   runs a task again
sacct, scancel          know nothing, and do nothing
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAMS = ("sbatch", "srun", "scontrol", "sacct", "scancel")
JOB = "4711"


def install(folder: Path, *, preempt: str = "") -> dict[str, str]:
    """Writes the programs into `folder`; returns the environment that finds them.

    Args:
        preempt: a pattern below the working directory. When a file matches it, the second task of
            an array is sent SIGUSR2, which warns of its end; once.
    """
    folder.mkdir()
    for name in PROGRAMS:
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.support.slurm {name} "$@"\n')
        program.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "STAND_IN": str(folder), "PREEMPT": preempt}


def _start(task: str) -> None:
    """Runs the submitted script, as one task of the array."""
    script = Path(os.environ["STAND_IN"]) / "script"
    own = {
        "SLURM_JOB_ID": f"{int(JOB) + int(task)}",
        "SLURM_ARRAY_JOB_ID": JOB,
        "SLURM_ARRAY_TASK_ID": task,
        **dict.fromkeys(("SLURM_NTASKS", "SLURM_JOB_NUM_NODES"), "1"),
        **dict.fromkeys(("SLURM_NODEID", "SLURM_PROCID", "SLURM_LOCALID"), "0"),
    }
    quiet = subprocess.DEVNULL
    subprocess.Popen(
        ["bash", script], env={**os.environ, **own}, stdout=quiet, stderr=quiet, stdin=quiet,
        start_new_session=True,
    )  # fmt: skip


def sbatch(script: str) -> int:
    text = Path(script).read_text()
    (Path(os.environ["STAND_IN"]) / "script").write_text(text)
    array = re.search(r"^#SBATCH --array=0-(\d+)", text, re.M)
    print(f"Submitted batch job {JOB}", flush=True)
    for task in range(int(array[1]) + 1 if array else 1):
        _start(str(task))
    return 0


def srun(*words: str) -> int:
    options = [word for word in words if word.startswith("--")]
    line, outputs = words, {}
    while line[0].startswith("--"):
        name, equals, value = line[0].partition("=")
        line = line[1:]
        if name in ("--output", "--error"):
            if not equals:
                value, line = line[0], line[1:]
            task = os.environ["SLURM_ARRAY_TASK_ID"]
            for mark, text in (("%A", JOB), ("%a", task), ("%j", JOB), ("%t", "0")):
                value = value.replace(mark, text)
            outputs[name] = open(value, "a")  # noqa: SIM115
    assert options
    process = subprocess.Popen(line, stdout=outputs["--output"], stderr=outputs["--error"])
    warned = Path(os.environ["STAND_IN"]) / "warned"
    pattern = os.environ["PREEMPT"] if os.environ["SLURM_ARRAY_TASK_ID"] == "1" else ""
    while process.poll() is None:
        if pattern and not warned.exists() and list(Path().glob(pattern)):
            warned.touch()
            process.send_signal(signal.SIGUSR2)
        time.sleep(0.02)
    return process.returncode


def scontrol(command: str, job: str) -> int:
    assert command == "requeue"
    _start(job.partition("_")[2])
    return 0


def sacct(*words: str) -> int:
    print("JobID|State|NodeList")
    return 0


def scancel(*words: str) -> int:
    return 0


if __name__ == "__main__":
    sys.exit(globals()[sys.argv[1]](*sys.argv[2:]))
