"""The tie to a Ray cluster: connecting to it in bounded time, and noticing when it is gone.

Ray alone tries to connect for a quarter of an hour, and ends the process without a word when
the head has been silent for a minute; a user is owed a sentence in both cases.  Nothing is
known of fleets here.
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

PROBE_SECONDS = 5.0  # how long the head's port may take to answer
LOOK_SECONDS = 1.0  # how often the cluster is looked at
GONE_SECONDS = 30.0  # a head may be silent for so long; Ray ends this process after 60

_HOST_PORT = re.compile(r"\S+:[0-9]{1,5}")


def import_ray() -> Any:
    """The package `ray`; ImportError with the mend if it is not installed."""
    # One try to connect takes 41 seconds, Ray's default is 20 of them.
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ImportError(
            f"--ray needs Ray ({error}): `pip install -e '.[cluster]'` in the repository."
        ) from error
    return ray


def checked_address(address: str) -> str:
    """`address` if it is `auto` or HOST:PORT; ValueError with the mend if not."""
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
    """Connect this process to the cluster at `address`; what it runs there ends with the block.

    Raises:
        ValueError: if there is no cluster, it is of other versions, or this process or machine
            cannot join it; within a minute.
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
    finally:  # Ray takes SIGTERM for itself
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
    # Or a node that dies prints 60 lines of its state; what matters is in failures.log.
    ray._private.worker._worker_logs_enabled = False
    try:
        yield
    finally:
        ray.shutdown()


def _probe_head(address: str) -> None:
    """ValueError with the mend if nothing listens at `address`."""
    from ray._private.services import canonicalize_bootstrap_address

    try:
        head = canonicalize_bootstrap_address(address)  # `auto` by Ray's own rules
    except (OSError, ValueError):
        head = None
    if head is None or not _answers(head):
        raise ValueError(
            f"There is no Ray cluster at {head or address}: start one with `ray start --head`, or "
            "join one with `ray start --address=HOST:PORT`, and run again."
        )


def _refusal(address: str, error: Exception) -> str:
    """Why what listens at `address` does not take this process, as a sentence with the mend."""
    said = " ".join(str(error).split())
    if "Version mismatch" in said:
        return f"The Ray cluster at {address} is of other versions; use one everywhere. {said}"
    if type(error).__name__ == "AuthenticationError":
        return (
            f"The Ray cluster at {address} wants a token: give both RAY_AUTH_MODE=token and the "
            "same RAY_AUTH_TOKEN (docs/CLUSTER.md)."
        )
    return (
        f"What listens at {address} does not take this process ({said.rstrip('.')}): check that "
        "it is the port of Ray's head, that this machine has joined it, and that both have the "
        "same RAY_AUTH_MODE and token (docs/CLUSTER.md)."
    )


class Watch:
    """The cluster's nodes, asked for every second, and for how long there was no answer.

    A thread asks, because Ray does not return while the head is silent.
    """

    sentence = (
        "The Ray cluster is gone: its head, or Ray on this machine, does not answer any more. "
        "Start it again; the same command goes on from here."
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
        """What each node that was alive at the last look has: CPU, GPU and others."""
        return self._nodes

    def _look(self) -> None:
        nodes = self._ray.nodes()
        self._nodes = [node["Resources"] for node in nodes if node["Alive"]]
        self._when = time.monotonic()

    def _keep_looking(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            try:
                self._look()
            except Exception:  # as good as no answer
                continue


def _answers(address: str) -> bool:
    """Whether something listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS).close()
    except (OSError, OverflowError):
        return False
    return True
