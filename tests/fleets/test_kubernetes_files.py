"""The files for Kubernetes, and the image: their fields, users, ports, volumes and commands."""

import copy
import os
import re
import shutil
import subprocess

import pytest
from kubernetes_fields import faults
from test_cluster_files import CLUSTER, RAY, ROOT, parsed

yaml = pytest.importorskip("yaml")

FILES = ("kuberay.yaml", "job.yaml", "copy.yaml")


def read(name):
    """The objects of a file, by kind."""
    return {
        document["kind"]: document for document in yaml.safe_load_all((CLUSTER / name).read_text())
    }


def pods_of(value):
    """Every pod's metadata and spec in an object, wherever they are."""
    if isinstance(value, dict):
        if "containers" in value.get("spec", {}):
            yield value
        for inner in value.values():
            yield from pods_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from pods_of(inner)


def places(value, place=()):
    """The path of every field in an object."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*place, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*place, key))


PODS = [(name, pod) for name in FILES for kind in read(name).values() for pod in pods_of(kind)]


@pytest.mark.parametrize("name", FILES)
def test_every_field_is_one_that_kubernetes_knows(name):
    for document in read(name).values():
        assert faults(document) == []


@pytest.mark.parametrize("name", FILES)
def test_a_misspelt_field_and_a_value_of_another_type_are_found(name):
    for document in read(name).values():
        for *folder, key in places(document):
            named = isinstance(key, str) and folder[-1:] not in (
                *(["matchLabels"], ["labels"], ["requests"], ["limits"], ["rayStartParams"]),
            )
            for change in ("name", "value") if named else ("value",):
                broken = copy.deepcopy(document)
                inner = broken
                for step in folder:
                    inner = inner[step]
                if change == "name":
                    inner[f"{key}x"] = inner.pop(key)
                else:
                    inner[key] = object()
                assert faults(broken), (folder, key, change)


def test_all_pods_are_checked():
    assert len(PODS) == 5 and len({pod["spec"]["containers"][0]["image"] for _, pod in PODS}) == 1


@pytest.mark.parametrize(("name", "pod"), PODS)
def test_pods_run_as_the_images_user_and_can_become_no_other(name, pod):
    """One uid for all: files are 0600, and a pod with another one could not read the models."""
    user, group = re.search(
        r"^USER (\d+):(\d+)$", (CLUSTER / "Dockerfile").read_text(), re.M
    ).groups()
    spec = pod["spec"]
    security = spec["securityContext"]
    assert security["runAsNonRoot"] is True and security["runAsUser"] == int(user) > 0
    assert security["runAsGroup"] == int(group)
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    head = "ray-head" in {container["name"] for container in spec["containers"]}
    assert head or spec["automountServiceAccountToken"] is False  # Ray's autoscaler needs it
    mounts = any("persistentVolumeClaim" in volume for volume in spec.get("volumes", ()))
    assert mounts == ("fsGroup" in security)
    # By default each mount gives the group every file, the secrets too.
    assert not mounts or security["fsGroupChangePolicy"] == "OnRootMismatch"


@pytest.mark.parametrize(("name", "pod"), PODS)
def test_pods_ask_for_what_they_may_use(name, pod):
    spec = pod["spec"]
    volumes = {volume["name"] for volume in spec.get("volumes", ())}
    for container in spec["containers"]:
        resources = container["resources"]
        for key in ("cpu", "memory", "nvidia.com/gpu"):  # of memory over the request none is sure
            if key in resources["limits"] or key == "memory":
                assert key == "cpu" or resources["requests"][key] == resources["limits"][key]
        assert {mount["name"] for mount in container.get("volumeMounts", ())} <= volumes
        if "nvidia.com/gpu" in resources["limits"]:
            assert any(t["key"] == "nvidia.com/gpu" for t in spec["tolerations"])


@pytest.mark.parametrize("name", FILES)
def test_no_pod_is_open_to_others(name):
    """No port but those of the fleet's own pods, and the one that KubeRay's operator asks."""
    objects = read(name)
    policies = [read(file)["NetworkPolicy"] for file in ("kuberay.yaml", "job.yaml")]
    selected = [policy["spec"]["podSelector"]["matchLabels"] for policy in policies]
    for document in objects.values():
        for pod in pods_of(document):
            assert pod["metadata"]["labels"] in selected
    ray, plain = (policy["spec"] for policy in policies)
    assert ray["policyTypes"] == plain["policyTypes"] == ["Ingress"] and "ingress" not in plain
    own, operator = ray["ingress"]
    assert own == {"from": [{"podSelector": ray["podSelector"]}]}
    assert [port["port"] for port in operator["ports"]] == [8265]
    (asks,) = operator["from"]
    assert asks["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "kuberay-operator"}


@pytest.mark.parametrize("name", FILES)
def test_the_claim_is_the_same_in_every_file(name):
    claims = [read(file)["PersistentVolumeClaim"] for file in ("kuberay.yaml", "job.yaml")]
    assert claims[0] == claims[1]
    used = [
        volume["persistentVolumeClaim"]["claimName"]
        for document in read(name).values()
        for pod in pods_of(document)
        for volume in pod["spec"].get("volumes", ())
        if "persistentVolumeClaim" in volume
    ]
    assert used == [claims[0]["metadata"]["name"]]


def test_kubernetes_file_has_what_kuberay_asks_for():
    job = read("kuberay.yaml")["RayJob"]["spec"]
    assert job["shutdownAfterJobFinishes"] and job["ttlSecondsAfterFinished"] > 0
    assert job["backoffLimit"] > 0 and job["activeDeadlineSeconds"] > 86400
    (submitter,) = job["submitterPodTemplate"]["spec"]["containers"]
    assert submitter["name"] == "ray-job-submitter"
    assert job["submitterPodTemplate"]["spec"]["restartPolicy"] == "Never"
    cluster = job["rayClusterSpec"]
    assert cluster["rayVersion"] == RAY and cluster["authOptions"] == {"mode": "token"}
    assert cluster["enableInTreeAutoscaling"] is True
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"][0]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    (mount,) = head["template"]["spec"]["containers"][0]["volumeMounts"]
    args = parsed(job["entrypoint"])
    # KubeRay puts it into a line of shell, where `&&` would end its own command.
    assert not set(job["entrypoint"]) & set("&;|<>$\"'`\\()")
    assert args.out.is_relative_to(mount["mountPath"]) and args.ray == "auto"
    assert 0 < args.gpus_per_task <= 1 and args.stack
    limits = workers["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == 1 and int(limits["cpu"]) >= 1 / args.gpus_per_task


def test_a_job_of_one_pod_trains_on_all_its_gpus():
    job = read("job.yaml")["Job"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    args = parsed(" ".join([*container["command"], *container["args"]]))
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert args.out.is_relative_to(mounts["data"]) and args.ray is None
    assert args.workers is None  # one process for each GPU
    assert container["resources"]["limits"]["nvidia.com/gpu"] > 1
    memory = {
        v["name"]: v["emptyDir"] for v in job["template"]["spec"]["volumes"] if "emptyDir" in v
    }
    assert mounts["shm"] == "/dev/shm" and memory["shm"]["medium"] == "Memory"
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # podFailurePolicy demands it
    evicted, wrong = job["podFailurePolicy"]["rules"]
    assert evicted["action"] == "Ignore"
    assert evicted["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert wrong["action"] == "FailJob" and wrong["onExitCodes"]["values"] == [2]
    assert wrong["onExitCodes"]["containerName"] == container["name"]
    assert job["ttlSecondsAfterFinished"] > 0 and job["activeDeadlineSeconds"] > 86400


def test_the_image_has_the_pinned_ray_and_what_the_package_is_made_of():
    text = (CLUSTER / "Dockerfile").read_text()
    assert f"FROM rayproject/ray:{RAY}-py311" in text
    for name in re.findall(r"^COPY --chown=\S+ (.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / word).exists() for word in name.split())
    assert "chmod o+rx /home/ray" in text  # else Apptainer's user could not run Python


# kubectl for a pod that is this machine, with its /data in the folder $POD.
KUBECTL = """#!/bin/bash
[ "$1" = exec ] || exit 9
shift; [ "$1" != -i ] || shift
[ "$1 $2" = "mico-copy --" ] || exit 9
shift 2
exec "${@/#\\/data/$POD/data}"
"""


@pytest.mark.parametrize("tool", ["tar", "rsync"])
def test_models_come_out_of_the_volume_with_their_modes(tmp_path, tool):
    """The lines of the page, run as they stand under a umask that lets others read."""
    if shutil.which(tool) is None:
        pytest.skip(f"needs {tool}")
    secret = (
        tmp_path / "data" / "out" / "digits" / "digits_inf" / "dev" / "model_0" / "seed_training"
    )
    secret.parent.mkdir(parents=True, mode=0o700)
    secret.write_text("1")
    secret.chmod(0o600)
    (tmp_path / "kubectl").write_text(KUBECTL)
    (tmp_path / "kubectl").chmod(0o755)
    page = (ROOT / "docs" / "CLUSTER.md").read_text()
    (block,) = re.findall(
        rf"^(?:\(umask 077; mkdir.*|printf [^\n]*over-kubectl\n.*){tool} .*$", page, re.MULTILINE
    )
    subprocess.run(
        ["bash", "-ec", f"umask 022\n{block}"],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "POD": str(tmp_path)},
        check=True,
    )
    copied = tmp_path / "trained" / secret.relative_to(tmp_path / "data" / "out")
    assert copied.read_text() == "1" and copied.stat().st_mode & 0o777 == 0o600
    assert copied.stat().st_mtime_ns // 10**9 == secret.stat().st_mtime_ns // 10**9
    assert all(folder.stat().st_mode & 0o077 == 0 for folder in list(copied.parents)[:1])
