"""Restores the state of the process after an attack has run.

An attack that seeds numpy, sets torch's default dtype or changes the working directory must not
alter the results of another attack.  Each run also begins with the same seeds, so its result does
not depend on what ran before it.
"""

from __future__ import annotations

import decimal
import gc
import locale
import logging
import multiprocessing
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

try:
    import resource
except ImportError:  # on Windows
    resource = None  # type: ignore[assignment]

from mico_competition.evaluation import modules

SEED = 0


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was removed
        return None


def _change_directory(folder: str | None) -> None:
    if folder is not None and _working_directory() != folder:
        os.chdir(folder)


def _set_environment(values: dict[str, str]) -> None:
    if dict(os.environ) != values:
        os.environ.clear()
        os.environ.update(values)


def _umask() -> int:
    now = os.umask(0o077)
    os.umask(now)
    return now


def _set_path(folders: list[str]) -> None:
    sys.path[:] = folders


def _set_streams(streams: tuple[Any, Any, Any]) -> None:
    sys.stdin, sys.stdout, sys.stderr = streams


def _cores() -> set[int] | None:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


def _set_cores(cores: set[int] | None) -> None:
    if cores is not None and _cores() != cores:
        os.sched_setaffinity(0, cores)


def _set_threads(count: int) -> None:
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


def _library_threads() -> list[tuple[Any, int]]:
    """The thread limits of numpy's libraries, if threadpoolctl has been imported."""
    module = sys.modules.get("threadpoolctl")
    if module is None:
        return []
    libraries = module.ThreadpoolController().lib_controllers
    return [(library, library.get_num_threads()) for library in libraries]


def _set_library_threads(values: list[tuple[Any, int]]) -> None:
    for library, count in values:
        if library.get_num_threads() != count:
            library.set_num_threads(count)


def _set_device(device: torch.device) -> None:
    if torch.get_default_device() != device:
        torch.set_default_device(None if device.type == "cpu" else device)


def _deterministic() -> tuple[bool, bool]:
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    return torch.are_deterministic_algorithms_enabled(), warns


def _set_deterministic(value: tuple[bool, bool]) -> None:
    if _deterministic() != value:  # its first call imports many modules
        torch.use_deterministic_algorithms(value[0], warn_only=value[1])


def _flushes_denormals() -> bool:
    small = torch.full((1,), 1e-310, dtype=torch.float64, device="cpu")
    return bool((small * 1 == 0).all())


def _cuda_generators() -> list[torch.Tensor] | None:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None


def _set_cuda_generators(states: list[torch.Tensor] | None) -> None:
    if states is not None:
        torch.cuda.set_rng_state_all(states)


def _autocast() -> tuple[bool, bool]:
    return torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")


def _set_autocast(values: tuple[bool, bool]) -> None:
    for device, value in zip(("cpu", "cuda"), values):
        torch.set_autocast_enabled(device, value)


def _backends() -> dict[tuple[str, str], Any]:
    """The flags of torch's libraries, which are read and set as attributes."""
    found = {}
    for library, names in _FLAGS.items():
        module = getattr(torch.backends, library)
        found.update({(library, name): getattr(module, name) for name in names})
    return found


def _set_backends(values: dict[tuple[str, str], Any]) -> None:
    for (library, name), value in values.items():
        module = getattr(torch.backends, library)
        if getattr(module, name) != value:
            setattr(module, name, value)


_FLAGS = {
    "mkldnn": ("enabled",),
    "cudnn": ("enabled", "benchmark", "deterministic"),
    "opt_einsum": ("enabled", "strategy"),
}


def _signal_handlers() -> dict[int, Any]:
    if threading.current_thread() is not threading.main_thread():
        return {}  # only the main thread sets them
    return {number: signal.getsignal(number) for number in signal.valid_signals()}


def _set_signal_handlers(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def _limits() -> dict[int, tuple[int, int]]:
    """Limits of files, memory and other resources; empty on Windows."""
    if resource is None:
        return {}
    numbers = {getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")}
    return {number: resource.getrlimit(number) for number in numbers}


def _set_limits(limits: dict[int, tuple[int, int]]) -> None:
    for number, (soft, _) in limits.items():
        now, hard = resource.getrlimit(number)
        if now != soft:  # only root can raise the hard limit again
            resource.setrlimit(number, (soft if hard < 0 else min(soft, hard), hard))


def _learning_settings() -> dict[str, Any]:
    """The settings of scikit-learn, if it has been imported."""
    module = sys.modules.get("sklearn")
    return {} if module is None else module.get_config()


def _set_learning_settings(values: dict[str, Any]) -> None:
    module = sys.modules.get("sklearn")
    if module is not None and values:
        module.set_config(**values)


def _set_torch_printing(values: dict[str, Any]) -> None:
    vars(torch._tensor_str.PRINT_OPTS).update(values)


_SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (_working_directory, _change_directory),
    (lambda: dict(os.environ), _set_environment),
    (_umask, os.umask),
    (_cores, _set_cores),
    (lambda: list(sys.path), _set_path),
    (modules.modules, modules.put_back),
    (modules.names, modules.put_names_back),
    (sys.getswitchinterval, sys.setswitchinterval),
    (_signal_handlers, _set_signal_handlers),
    (_limits, _set_limits),
    (lambda: (sys.stdin, sys.stdout, sys.stderr), _set_streams),
    (sys.getrecursionlimit, sys.setrecursionlimit),
    (gc.isenabled, lambda value: gc.enable() if value else gc.disable()),
    (
        lambda: locale.setlocale(locale.LC_ALL),
        lambda value: locale.setlocale(locale.LC_ALL, value),
    ),
    (lambda: decimal.getcontext().copy(), decimal.setcontext),
    (lambda: logging.root.manager.disable, logging.disable),
    (lambda: logging.root.level, lambda value: logging.root.setLevel(value)),
    (
        lambda: multiprocessing.get_start_method(allow_none=True),
        lambda value: multiprocessing.set_start_method(value, force=True),
    ),
    (random.getstate, random.setstate),
    (np.random.get_state, np.random.set_state),
    (np.geterr, lambda value: np.seterr(**value)),
    (np.geterrcall, np.seterrcall),
    (np.getbufsize, np.setbufsize),
    (_learning_settings, _set_learning_settings),
    (np.get_printoptions, lambda value: np.set_printoptions(**value)),
    (_backends, _set_backends),
    (lambda: dict(vars(torch._tensor_str.PRINT_OPTS)), _set_torch_printing),
    (torch.get_rng_state, torch.set_rng_state),
    (_cuda_generators, _set_cuda_generators),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_default_device, _set_device),
    (torch.get_num_threads, _set_threads),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.is_anomaly_enabled, torch.set_anomaly_enabled),
    (_autocast, _set_autocast),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (_flushes_denormals, torch.set_flush_denormal),
    (_deterministic, _set_deterministic),
    (_library_threads, _set_library_threads),
)
"""The functions that read and restore each setting."""


@contextmanager
def undisturbed() -> Iterator[None]:
    """Start global generators at SEED in the block, and restore all state after it."""
    with ExitStack() as after, warnings.catch_warnings():
        for read, put_back in _SETTINGS:
            after.callback(put_back, read())
        random.seed(SEED)
        np.random.seed(SEED)
        torch.manual_seed(SEED)
        yield
