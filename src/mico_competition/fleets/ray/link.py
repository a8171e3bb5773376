"""Connects to a Ray cluster in bounded time, and notices when the cluster is gone.

By itself Ray tries to connect for a quarter of an hour, and ends the process without a message
when the head has been silent for a minute.  This module gives a clear error in both cases.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mico_competition.support.extras import install, where

PROBE_SECONDS = 5.0  # how long the head's port may take to answer
LOOK_SECONDS = 1.0  # how often the state of the cluster is polled
GONE_SECONDS = 30.0  # how long the head may be silent; Ray ends this process after 60

_HOST_PORT = re.compile(r"\S+:[0-9]{1,5}")


def import_ray() -> Any:
    """Import `ray`; ImportError with the command that installs it if it is missing."""
    # One try to connect takes 41 seconds, and by default Ray makes 20.
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ImportError(f"--ray needs Ray ({error}): `{install('ray')}`{where()}.") from error
    return ray


def checked_address(address: str) -> str:
    """Return `address` if it is `auto` or HOST:PORT, and raise ValueError if not."""
    if address.startswith("ray://"):
        raise ValueError(
            f"--ray {address} is for Ray's client; a fleet runs on a node of the cluster: run it "
            "there with --ray auto, or join with `ray start --address=HOST:PORT` first."
        )
    if address != "auto" and not _HOST_PORT.fullmatch(address):
        raise ValueError(f"Expected --ray auto or --ray HOST:PORT, got {address!r}.")
    return address


@contextmanager
def connected(ray: Any, address: str) -> Iterator[None]:
    """Connect this process to the cluster at `address`; its tasks end with the `with` block.

    Raises:
        ValueError: within a minute, if there is no cluster, if its versions differ from ours, or
            if this process or machine cannot join it.
    """
    if ray.is_initialized():
        raise ValueError("This process is connected to Ray already: call ray.shutdown() first.")
    _probe_head(address)
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except Exception as error:
        ray.shutdown()
        raise ValueError(_refusal(address, error)) from error
    finally:  # Ray has replaced the handler of SIGTERM
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
    # Otherwise a node that dies prints 60 lines about its state; failures.log has what matters.
    ray._private.worker._worker_logs_enabled = False
    try:
        yield
    finally:
        ray.shutdown()


def _probe_head(address: str) -> None:
    """Raise ValueError if nothing listens at `address`."""
    from ray._private.services import canonicalize_bootstrap_address

    try:
        head = canonicalize_bootstrap_address(address)  # resolves `auto` by Ray's rules
    except (OSError, ValueError):
        head = None
    if head is None or not _answers(head):
        raise ValueError(
            f"There is no Ray cluster at {head or address}: start one with `ray start --head`, or "
            "join one with `ray start --address=HOST:PORT`, and run again."
        )


def _refusal(address: str, error: Exception) -> str:
    """Why the cluster at `address` refused this process, and what to do about it."""
    reason = " ".join(str(error).split())
    if "Version mismatch" in reason:
        return (
            f"The Ray cluster at {address} runs other versions: install the same everywhere. "
            f"{reason}"
        )
    if type(error).__name__ == "AuthenticationError":
        return (
            f"The Ray cluster at {address} requires a token: set both RAY_AUTH_MODE=token and the "
            "same RAY_AUTH_TOKEN (docs/CLUSTER.md)."
        )
    return (
        f"What listens at {address} does not accept this process ({reason.rstrip('.')}): check "
        "that it is the port of Ray's head, that this machine has joined it, and that both have "
        "the same RAY_AUTH_MODE and token (docs/CLUSTER.md)."
    )


class Watch:
    """Polls the cluster's nodes every second, and notices if the head no longer answers.

    It polls in a thread, because Ray's call does not return while the head is silent.
    """

    sentence = (
        "The Ray cluster is gone: its head, or Ray on this machine, does not answer any more. "
        "Start it again; the same command continues from here."
    )

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._over = threading.Event()
        self._look()
        self._thread = threading.Thread(target=self._keep_looking, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(LOOK_SECONDS)

    @property
    def gone(self) -> bool:
        """Whether the head has been silent for too long."""
        return time.monotonic() - self._when > GONE_SECONDS

    def resources(self) -> list[dict[str, float]]:
        """The resources (CPU, GPU and others) of each node that was alive at the last poll."""
        return self._nodes

    def _look(self) -> None:
        nodes = self._ray.nodes()
        self._nodes = [node["Resources"] for node in nodes if node["Alive"]]
        self._when = time.monotonic()

    def _keep_looking(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            try:
                self._look()
            except Exception:  # counts as no answer
                continue


def _answers(address: str) -> bool:
    """Whether something listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS).close()
    except (OSError, OverflowError):
        return False
    return True
