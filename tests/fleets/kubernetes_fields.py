"""The fields of Kubernetes' and KubeRay's objects that our files use or may come to use.

Read from KubeRay's definition of RayJob (v1.5.1 to v1.7.0) and Kubernetes' schemas (1.31 to 1.37).
A table is a mapping of names to what stands there: a type, a tuple of the permitted values, a list
of one element's table, or a further table; "*" is any name, "!" marks one that must be there.
"""

import re


class Quantity:
    """A number of CPUs, bytes or devices, such as 2, "500m" or 16Gi."""


NAMES = {"*": str}
AMOUNTS = {"requests": {"*": Quantity}, "limits": {"*": Quantity}}
METADATA = {"name": str, "namespace": str, "labels": NAMES, "annotations": NAMES}
SELECTOR = {"matchLabels": NAMES}
SECCOMP = {"type!": ("RuntimeDefault", "Localhost", "Unconfined")}
CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": bool,
    "capabilities": {"add": [str], "drop": [str]},
    "readOnlyRootFilesystem": bool,
    "runAsGroup": int,
    "runAsNonRoot": bool,
    "runAsUser": int,
    "seccompProfile": SECCOMP,
}
POD_SECURITY = {
    "fsGroup": int,
    "fsGroupChangePolicy": ("Always", "OnRootMismatch"),
    "runAsGroup": int,
    "runAsNonRoot": bool,
    "runAsUser": int,
    "seccompProfile": SECCOMP,
    "supplementalGroups": [int],
}
CONTAINER = {
    "name!": str,
    "image": str,
    "imagePullPolicy": ("Always", "IfNotPresent", "Never"),
    "command": [str],
    "args": [str],
    "env": [{"name!": str, "value": str}],
    "ports": [{"containerPort!": int, "name": str, "protocol": ("TCP", "UDP", "SCTP")}],
    "resources": AMOUNTS,
    "securityContext": CONTAINER_SECURITY,
    "volumeMounts": [{"name!": str, "mountPath!": str, "subPath": str, "readOnly": bool}],
    "workingDir": str,
}
VOLUME = {
    "name!": str,
    "emptyDir": {"medium": ("", "Memory"), "sizeLimit": Quantity},
    "persistentVolumeClaim": {"claimName!": str, "readOnly": bool},
}
TOLERATION = {
    "key": str,
    "operator": ("Exists", "Equal"),
    "value": str,
    "effect": ("NoSchedule", "PreferNoSchedule", "NoExecute"),
}
POD_SPEC = {
    "activeDeadlineSeconds": int,
    "automountServiceAccountToken": bool,
    "containers!": [CONTAINER],
    "imagePullSecrets": [{"name": str}],
    "nodeSelector": NAMES,
    "priorityClassName": str,
    "restartPolicy": ("Always", "OnFailure", "Never"),
    "securityContext": POD_SECURITY,
    "serviceAccountName": str,
    "terminationGracePeriodSeconds": int,
    "tolerations": [TOLERATION],
    "volumes": [VOLUME],
}
POD_TEMPLATE = {"metadata": METADATA, "spec!": POD_SPEC}
JOB_SPEC = {
    "activeDeadlineSeconds": int,
    "backoffLimit": int,
    "completions": int,
    "parallelism": int,
    "podFailurePolicy": {
        "rules!": [
            {
                "action!": ("Count", "FailIndex", "FailJob", "Ignore"),
                "onExitCodes": {
                    "containerName": str,
                    "operator!": ("In", "NotIn"),
                    "values!": [int],
                },
                "onPodConditions": [{"type!": str, "status!": ("True", "False", "Unknown")}],
            }
        ]
    },
    "suspend": bool,
    "template!": POD_TEMPLATE,
    "ttlSecondsAfterFinished": int,
}
PEER = {"podSelector": SELECTOR, "namespaceSelector": SELECTOR}
PORT = {"protocol": ("TCP", "UDP", "SCTP"), "port": int, "endPort": int}
POLICY_SPEC = {
    "podSelector!": SELECTOR,
    "policyTypes": [("Ingress", "Egress")],
    "ingress": [{"from": [PEER], "ports": [PORT]}],
    "egress": [{"to": [PEER], "ports": [PORT]}],
}
CLAIM_SPEC = {
    "accessModes": [("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")],
    "resources": AMOUNTS,
    "storageClassName": str,
    "volumeName": str,
}
HEAD_GROUP = {
    "rayStartParams": NAMES,
    "serviceType": ("ClusterIP", "NodePort", "LoadBalancer"),
    "template!": POD_TEMPLATE,
}
WORKER_GROUP = {
    "groupName!": str,
    "idleTimeoutSeconds": int,
    "maxReplicas!": int,
    "minReplicas!": int,
    "rayStartParams": NAMES,
    "replicas": int,
    "template!": POD_TEMPLATE,
}
RAY_CLUSTER = {
    "authOptions": {"mode": ("disabled", "token")},
    "autoscalerOptions": {
        "idleTimeoutSeconds": int,
        "resources": AMOUNTS,
        "securityContext": CONTAINER_SECURITY,
    },
    "enableInTreeAutoscaling": bool,
    "headGroupSpec!": HEAD_GROUP,
    "rayVersion": str,
    "workerGroupSpecs": [WORKER_GROUP],
}
RAY_JOB = {
    "activeDeadlineSeconds": int,
    "backoffLimit": int,
    "entrypoint": str,
    "rayClusterSpec": RAY_CLUSTER,
    "shutdownAfterJobFinishes": bool,
    "submissionMode": ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    "submitterPodTemplate": POD_TEMPLATE,
    "suspend": bool,
    "ttlSecondsAfterFinished": int,
}
KINDS = {
    ("batch/v1", "Job"): JOB_SPEC,
    ("networking.k8s.io/v1", "NetworkPolicy"): POLICY_SPEC,
    ("ray.io/v1", "RayJob"): RAY_JOB,
    ("v1", "PersistentVolumeClaim"): CLAIM_SPEC,
    ("v1", "Pod"): POD_SPEC,
}
_AMOUNT = re.compile(r"\d+(\.\d+)?(m|[kMGTP]|[KMGTP]i)?")


def faults(document):
    """The faults of one object, each with its place."""
    kind = (document.get("apiVersion"), document.get("kind"))
    if kind not in KINDS:
        return [f"{kind} is unknown"]
    table = {"apiVersion!": str, "kind!": str, "metadata!": METADATA, "spec!": KINDS[kind]}
    return list(_faults(document, table, kind[1]))


def _faults(value, table, place):
    if table is Quantity:
        if not _AMOUNT.fullmatch(str(value)) or isinstance(value, bool):
            yield f"{place}: {value!r} is no quantity"
    elif isinstance(table, tuple):
        if value not in table:
            yield f"{place}: {value!r} is none of {table}"
    elif isinstance(table, list):
        if not isinstance(value, list):
            yield f"{place}: {value!r} is no list"
        else:
            for i, element in enumerate(value):
                yield from _faults(element, table[0], f"{place}[{i}]")
    elif isinstance(table, dict):
        if not isinstance(value, dict):
            yield f"{place}: {value!r} is no mapping"
        else:
            yield from _mapping_faults(value, table, place)
    elif type(value) is not table:
        yield f"{place}: {value!r} is no {table.__name__}"


def _mapping_faults(value, table, place):
    known = {name.rstrip("!"): inner for name, inner in table.items()}
    for name, inner in value.items():
        if not isinstance(name, str) or not (name in known or "*" in known):
            yield f"{place}: there is no field {name!r}"
        else:
            yield from _faults(inner, known.get(name, known.get("*")), f"{place}.{name}")
    for name in table:
        if name.endswith("!") and name[:-1] not in value:
            yield f"{place}: {name[:-1]} is missing"
