"""The launch files for Slurm and Kubernetes: what of them can be held to the truth here."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers_fleet import wait_for

from mico_competition.cli import build_parser

ROOT = Path(__file__).resolve().parent.parent
CLUSTER = ROOT / "training" / "cluster"
RAY = re.search(r"^ray==(\S+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)[1]

# Slurm's commands, for one machine that plays all nodes: a step runs at once, here.
SRUN = '#!/bin/bash\nwhile [[ ${1-} == --* ]]; do shift; done\necho "$*" >>"$SAID"\nexec "$@"\n'
SCONTROL = """#!/bin/bash
echo "scontrol $*" >>"$SAID"
[ "$1" != show ] || printf 'first\\nsecond\\n'
"""


def processes_with(text):
    """Ids of processes whose command line holds `text`."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text in place.read_text() and int(place.parent.name) != os.getpid():
                found.append(int(place.parent.name))
        except OSError:
            continue
    return found


def parsed(command):
    """The arguments of a `mico` command, as its own parser takes them."""
    words = shlex.split(command)
    assert words[0] == "mico"
    return build_parser().parse_args(words[1:])


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_slurms_file_trains_stops_in_time_and_queues_again(tmp_path):
    """On two Ray nodes for real; only Slurm's own two commands are played."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[cluster]'")
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    job, out, said = str(os.getpid()), tmp_path / "out", tmp_path / "said"
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SAID": str(said),
        "TMPDIR": str(tmp_path),  # where tasks that are stopped leave an empty folder
        "SLURM_JOB_ID": job,
        "SLURM_JOB_NODELIST": "first,second",
        "SLURM_CPUS_PER_TASK": "1",
    }
    flags = ["digits_inf,digits_lo", "0-9", str(out), "--stack", "1", "--num_epochs", "400"]
    process = subprocess.Popen(
        ["bash", str(CLUSTER / "slurm.sbatch"), *flags],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for(lambda: list(out.glob("digits/digits_inf/train/model_*")), 300)
    finally:
        process.send_signal(signal.SIGUSR1)
        log = process.communicate(timeout=120)[0]
    assert process.returncode == 0, log
    assert "of 10 models done; the same command goes on from here" in log
    steps = said.read_text()
    assert re.search(r"^ray start --head .*--num-cpus=1 ", steps, re.MULTILINE)
    assert re.search(r"^ray start --block --address=\S+:\d+ --num-cpus=1$", steps, re.MULTILINE)
    assert f"scontrol requeue {job}" in steps
    assert not (out / "fleet" / "digits_lo").exists()  # the second scenario is for the next time
    assert (out / "fleet" / "digits_inf").stat().st_mode & 0o077 == 0
    assert not Path(f"/tmp/mico_{job}").exists()
    wait_for(lambda: not processes_with(f"/tmp/mico_{job}"), 30)


def test_slurms_file_says_how_it_is_called():
    script = CLUSTER / "slurm.sbatch"
    said = subprocess.run(["bash", str(script)], capture_output=True, text=True)
    assert said.returncode == 1 and "usage: sbatch" in said.stderr
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", "-s", "bash", "-S", "warning", str(script)], check=True)
    directives = re.findall(r"^#SBATCH (--[a-z-]+)", script.read_text(), re.MULTILINE)
    assert {"--requeue", "--no-kill", "--signal", "--cpus-per-task"} <= set(directives)


def test_kubernetes_file_has_what_kuberay_asks_for():
    yaml = pytest.importorskip("yaml")
    claim, job = yaml.safe_load_all((CLUSTER / "kuberay.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == RAY and cluster["authOptions"] == {"mode": "token"}
    assert cluster["enableInTreeAutoscaling"] is True
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"][0]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    for group in (head, workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    pods = [group["template"]["spec"] for group in (head, workers)]
    assert len({pod["containers"][0]["image"] for pod in pods}) == 1
    volume = pods[0]["volumes"][0]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    mount = pods[0]["containers"][0]["volumeMounts"][0]
    assert mount["name"] == volume["name"]
    args = parsed(job["spec"]["entrypoint"])
    assert args.out.is_relative_to(mount["mountPath"]) and args.ray == "auto"
    assert 0 < args.gpus_per_task <= 1 and args.stack
    limits = pods[1]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == 1 and int(limits["cpu"]) >= 1 / args.gpus_per_task


def test_the_image_has_the_pinned_ray_and_what_the_package_is_made_of():
    text = (CLUSTER / "Dockerfile").read_text()
    assert f"FROM rayproject/ray:{RAY}-py311" in text
    for name in re.findall(r"^COPY --chown=\S+ (.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / word).exists() for word in name.split())


def test_commands_of_the_page_are_commands():
    page = (ROOT / "docs" / "CLUSTER.md").read_text().replace("\\\n", " ")
    commands = re.findall(r"^mico fleet .+$", page, re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        parsed(command.partition("#")[0])
