"""The launch file for Slurm: what of it can be held to the truth here."""

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

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "training" / "cluster"
RAY = re.search(r"^ray==(\S+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)[1]

# Slurm's commands, for one machine that plays all nodes: a step runs at once, here.  Like the real
# one, srun passes USR1 on to all processes of its step, and for TERM kills them.
SRUN = """#!/bin/bash
echo "srun $*" >>"$SAID"
while [[ ${1-} == --* ]]; do shift; done
tell() {
    until kill "-$1" -- -$step 2>/dev/null || ! kill -0 $step 2>/dev/null; do sleep 0.01; done
}
trap 'early=USR1; [ -z "${step-}" ] || tell USR1' USR1
trap 'early=KILL; [ -z "${step-}" ] || tell KILL' TERM
setsid "$@" & step=$!
[ -z "${early-}" ] || tell $early
until wait $step; code=$?; [ $code -le 128 ] || ! kill -0 $step 2>/dev/null; do :; done
exit $code
"""
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


@pytest.mark.alone
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
        log = process.communicate(timeout=600)[0]
    assert process.returncode == 0, log
    assert "of 10 models done; the same command continues from here" in log
    steps = said.read_text()
    assert re.search(r"ray start --head .*--num-cpus=1 ", steps)
    assert re.search(r"ray start --block --address=\S+:\d+ --num-cpus=1 ", steps)
    assert f"scontrol requeue {job}" in steps
    assert not (out / "fleet" / "digits_lo").exists()  # the second scenario is for the next time
    assert (out / "fleet" / "digits_inf").stat().st_mode & 0o077 == 0
    assert not Path(f"/tmp/mico_{job}").exists()
    wait_for(lambda: not processes_with(f"/tmp/mico_{job}"), 30)


PLAYED = {  # for the script's own decisions, in which neither Ray nor models matter
    "srun": SRUN,
    "scontrol": SCONTROL + '[ "$1" != requeue ] || [ -z "${DENIED-}" ]\n',
    "sbatch": '#!/bin/bash\necho "sbatch $*" >>"$SAID"\n',
    "box": '#!/bin/bash\necho "box $*" >>"$SAID"\nexec "$@"\n',
    "ray": """#!/bin/bash
[ "$1" != status ] || { ! grep -q "^ray start --head" "$SAID" || echo ' node_1'; exit; }
echo "ray $*" >>"$SAID"
echo "files in $RAY_TMPDIR and ${TMPDIR-/tmp}" >>"$SAID"
echo "ends in $RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S s" >>"$SAID"
trap 'kill $!; echo "ray stopped" >>"$SAID"; exit' TERM
sleep 100 >/dev/null 2>&1 & wait
""",
    "rm": """#!/bin/bash
[ "$1 $2" != "-rf $RAY_TMPDIR" ] || echo "rm $*" >>"$SAID"
exec /bin/rm "$@"
""",
    "mico": """#!/bin/bash
echo "mico $*" >>"$SAID"
trap 'kill $!; echo "mico stopped" >>"$SAID"; exit 130' TERM
[ -z "${TRAINS-}" ] || mkdir -p "$6/digits/$2/train/model_3"
[ -z "${KEEPS-}" ] || { mkdir -p "$6/fleet/$2/checkpoints/model_4"
    date +%N >"$6/fleet/$2/checkpoints/model_4/checkpoint.json"; }
until [ "$(grep -c "^files in" "$SAID")" -ge 2 ]; do sleep 0.02; done # both nodes
touch "$SAID.begun"
sleep 100 & wait
""",
}


class Slurm:
    """Slurm, Ray and mico as shell scripts that write down how they were called."""

    def __init__(self, folder):
        self.folder, self.out = folder, folder / "out"
        for name, text in PLAYED.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)

    def run(self, *signals, job="4242", scenarios="digits_inf,digits_lo", out=None, **variables):
        """The exit code and the log of a job that gets `signals` once a fleet is at work."""
        (self.folder / "said").write_text("")
        (self.folder / "said.begun").unlink(missing_ok=True)
        removed = ("SLURM_", "MICO_", "CUDA_", "HEAD_", "TMPDIR")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(removed)}
        environment |= {
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "SAID": str(self.folder / "said"),
            "SLURM_JOB_NODELIST": "first,second",
            "SLURM_CPUS_PER_TASK": "3",
            **({"SLURM_JOB_ID": job} if job else {}),
        }
        process = subprocess.Popen(
            ["bash", str(CLUSTER / "slurm.sbatch"), scenarios, "0-9", out or str(self.out)],
            env={**environment, **variables},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if signals:
            wait_for((self.folder / "said.begun").exists, 30)
        for one in signals:
            process.send_signal(one)
        log = process.communicate(timeout=600)[0]
        return process.returncode, log

    @property
    def said(self):
        return (self.folder / "said").read_text()


def test_a_job_that_gained_nothing_is_not_queued_again(tmp_path):
    """A model that takes longer than --time would have it queued for ever."""
    slurm = Slurm(tmp_path)
    (slurm.out / "digits/digits_inf/train/model_0").mkdir(parents=True)  # of an earlier round
    code, log = slurm.run(signal.SIGUSR1)
    assert code == 1 and "scontrol requeue" not in slurm.said
    assert "not one model was finished" in log and "Ask for a longer --time" in log


def test_a_job_that_gained_a_model_is_queued_again(tmp_path):
    slurm = Slurm(tmp_path)
    code, log = slurm.run(signal.SIGUSR1, TRAINS="yes")
    assert code == 0 and "(models finished in it: 1): queued again" in log
    # Slurm ends a job that it queues again, so the nodes' disks are cleaned first.
    assert re.search(r"rm -rf /tmp/mico_4242\n(.*\n)*scontrol requeue 4242\n$", slurm.said)
    code, log = slurm.run(signal.SIGUSR1, TRAINS="yes")  # the same one: nothing new
    assert code == 1 and "not queued again" in log


def test_a_job_that_wrote_a_checkpoint_is_queued_again(tmp_path):
    """One model may take longer than --time: it goes on from its checkpoint in the next round."""
    slurm = Slurm(tmp_path)
    for _ in range(2):
        code, log = slurm.run(signal.SIGUSR1, KEEPS="yes")
        assert code == 0 and "scontrol requeue 4242" in slurm.said
    code, log = slurm.run(signal.SIGUSR1)  # the checkpoint is that of the round before
    assert code == 1 and "nor a checkpoint written" in log


def test_a_job_that_slurm_does_not_queue_again_says_so(tmp_path):
    code, log = Slurm(tmp_path).run(signal.SIGUSR1, TRAINS="yes", DENIED="yes")
    assert code == 1 and "send it once more by the same command" in log


def test_a_job_that_is_cancelled_does_not_queue_itself(tmp_path):
    slurm = Slurm(tmp_path)
    code, _ = slurm.run(signal.SIGTERM, TRAINS="yes", MICO_TMP="/dev/shm")
    assert code == 130 and "requeue" not in slurm.said
    # Ray ended, and then its step cleaned the node: Slurm starts no other step in such a job.
    assert slurm.said.count("ray stopped\nrm -rf /dev/shm/mico_4242\n") >= 1
    assert slurm.said.count("mico fleet") == 1  # the second scenario is not begun


@pytest.mark.parametrize(
    ("variables", "flags"),
    [
        ({}, ""),
        ({"MICO_GPUS": "a100:4", "MICO_MEM": "64G"}, "--gpus-per-node=a100:4 --mem=64G "),
        ({"MICO_GRES": "gpu:2"}, "--gres=gpu:2 "),
    ],
)
def test_called_by_hand_it_sends_itself(tmp_path, variables, flags):
    slurm = Slurm(tmp_path)
    assert slurm.run(job=None, **variables)[0] == 0
    script = CLUSTER / "slurm.sbatch"
    assert slurm.said == f"sbatch {flags}{script} digits_inf,digits_lo 0-9 {slurm.out}\n"


def test_gpus_that_were_wanted_and_not_had_are_an_error(tmp_path):
    slurm = Slurm(tmp_path)
    code, log = slurm.run(MICO_GPUS="a100:4")
    assert code == 1 and "4 GPUs a node were wanted, and this job has none" in log
    assert "ray" not in slurm.said
    _, log = slurm.run(signal.SIGTERM, scenarios="sst2_lo")
    assert "This job has no GPU" in log
    _, log = slurm.run(signal.SIGTERM, scenarios="sst2_lo", SLURM_GPUS_ON_NODE="1")
    assert "This job has no GPU" not in log


PYXIS = "--container-image=/shared/mico.sqsh --container-mounts=/shared:/shared,/tmp:/tmp"


def test_an_image_that_srun_opens_holds_ray_and_the_fleet(tmp_path):
    """Pyxis adds options to srun, so the fleet is a step too, and is stopped through srun."""
    slurm = Slurm(tmp_path)
    code, log = slurm.run(signal.SIGUSR1, TRAINS="yes", MICO_SRUN=PYXIS, MICO_CONTAINER="box")
    assert code == 0 and "scontrol requeue 4242" in slurm.said, log
    steps = re.findall(r"^srun (.+)$", slurm.said, re.MULTILINE)
    inside = [step for step in steps if "ray " in step or "mico " in step]
    assert len(inside) >= 4 and all(f" {PYXIS} " in step for step in inside)
    (fleet,) = (step for step in inside if "mico fleet" in step)
    assert fleet.startswith("--overlap --nodes=1 --ntasks=1 --nodelist=first --container-image=")
    assert "box mico fleet digits_inf" in fleet
    assert "mico stopped" in slurm.said  # not killed: it wrote where it was
    (end,) = (step for step in steps if "rm -rf /tmp" in step)
    assert "container" not in end  # Ray's files lie on the node


def test_each_job_of_an_array_trains_one_scenario(tmp_path):
    slurm = Slurm(tmp_path)
    code, _ = slurm.run(signal.SIGUSR1, TRAINS="yes", SLURM_ARRAY_TASK_ID="1")
    assert code == 0 and "mico fleet digits_lo " in slurm.said
    assert "mico fleet digits_inf " not in slurm.said
    code, log = slurm.run(SLURM_ARRAY_TASK_ID="2")
    assert code == 1 and "sbatch --array=0-1 has one for each of digits_inf digits_lo" in log


def test_folders_are_found_from_every_node(tmp_path):
    slurm = Slurm(tmp_path)
    slurm.run(signal.SIGTERM, out="out", MICO_TMP="/dev/shm")
    assert f"--out {slurm.out} --ray" in slurm.said
    assert "files in /dev/shm/mico_4242 and /dev/shm/mico_4242\nends in 10 s\n" in slurm.said
    code, log = slurm.run(MICO_TMP="/scratch/of/somebody/with/a/long/name")
    assert code == 1 and "choose a folder of at most 30 letters" in log


@pytest.mark.parametrize(
    ("variables", "flags"),
    [
        ({"SLURM_GPUS_PER_NODE": "a100:4", "SLURM_GPUS_ON_NODE": "4"}, "--num-gpus=4 "),
        ({"SLURM_GPUS_ON_NODE": "2"}, "--num-gpus=2 "),  # --gres=gpu:a100:2
        ({"SLURM_GPUS_ON_NODE": "2", "SLURM_GPUS": "3"}, ""),  # another number on each node
    ],
)
def test_ray_is_told_the_gpus_of_each_node(tmp_path, variables, flags):
    slurm = Slurm(tmp_path)
    slurm.run(signal.SIGUSR1, TRAINS="yes", **variables)
    starts = re.findall(r"^ray start .*$", slurm.said, re.MULTILINE)
    assert starts and all(f"--num-cpus=3 {flags}--object-store" in start for start in starts)


@pytest.mark.slow
def test_ray_is_told_what_the_job_has(tmp_path):
    slurm = Slurm(tmp_path)
    slurm.run(signal.SIGTERM)
    starts = re.findall(r"^ray start .*$", slurm.said, re.MULTILINE)
    assert starts and all("--num-cpus=3 --object-store-memory=2000000000" in s for s in starts)
    assert all("num-gpus" not in s for s in starts)
    variables = {
        "MICO_GPUS": "a100:2",
        "SLURM_GPUS_ON_NODE": "2",
        "MICO_OBJECT_STORE": "8e9",
        "MICO_CONTAINER": "box exec-less",
        "HEAD_IP": "10.0.0.7",
    }
    (tmp_path / "box").write_text('#!/bin/bash\nshift\necho "box $*" >>"$SAID"\nexec "$@"\n')
    slurm.run(signal.SIGTERM, **variables)
    starts = re.findall(r"^box ray start .*$", slurm.said, re.MULTILINE)
    assert any("--head" in s and "--node-ip-address=10.0.0.7" in s for s in starts)
    assert all("--num-gpus=2 --object-store-memory=8000000000" in s for s in starts)
    assert "box mico fleet digits_inf" in slurm.said


@pytest.mark.slow
def test_the_pages_token_is_its_owners_alone(tmp_path):
    """The line of the page, run as it stands."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[cluster]'")
    page = (ROOT / "docs" / "CLUSTER.md").read_text()
    (line,) = re.findall(r"^.*get-auth-token.*$", page, re.MULTILINE)
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "RAY_AUTH_MODE": "token",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command = ["bash", "-c", f"umask 022; {line}"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    token = tmp_path / ".ray" / "auth_token"
    assert token.stat().st_mode & 0o777 == 0o600
    assert token.parent.stat().st_mode & 0o777 == 0o700


def test_slurms_file_says_how_it_is_called():
    script = CLUSTER / "slurm.sbatch"
    said = subprocess.run(["bash", str(script)], capture_output=True, text=True)
    assert said.returncode == 1 and "usage: sbatch" in said.stderr
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", "-s", "bash", "-S", "warning", str(script)], check=True)
    directives = re.findall(r"^#SBATCH (--[a-z-]+)", script.read_text(), re.MULTILINE)
    assert {"--requeue", "--no-kill", "--signal", "--cpus-per-task", "--mem"} <= set(directives)


def test_commands_of_the_page_are_commands():
    page = (ROOT / "docs" / "CLUSTER.md").read_text().replace("\\\n", " ")
    commands = re.findall(r"^mico fleet .+$", page, re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        parsed(command.partition("#")[0])
