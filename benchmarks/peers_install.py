"""The packages that benchmarks/peers.py compares, each installed into an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Peer:
    """What pip installs, the module whose import shows that it works, and who asks it."""

    requirement: str
    module: str
    adapter: str = ""
    beside: str = ""
    """With these the peer is installed without its own list of dependencies."""


TENSORFLOW = (
    "tensorflow-cpu==2.15.1 numpy==1.26.4 keras==2.15.0 ml-dtypes==0.3.2 protobuf==4.25.8 "
    "wrapt==1.14.2 tensorflow-estimator==2.15.0 absl-py astunparse flatbuffers gast google-pasta "
    "h5py opt-einsum termcolor"
)
PEERS = {
    "Opacus": Peer("opacus==1.6.0", "opacus"),
    "jax_privacy": Peer("jax-privacy==2.0.0", "jax_privacy.auditing", "jax_privacy"),
    "PrivacyGuard": Peer(
        "privacyguard-platform==0.0.2",
        "privacy_guard.attacks.lira_attack",
        "privacyguard",
        beside="pandas",
    ),
    "ART": Peer(
        "adversarial-robustness-toolbox==1.20.1",
        "art.attacks.inference.membership_inference",
        "art",
    ),
    "opake": Peer("opake-auditing==0.16.1", "opake.auditing", "opake"),
    "TensorFlow Privacy": Peer(
        "tensorflow-empirical-privacy==0.1.0",
        "tensorflow_privacy.privacy.privacy_tests.membership_inference_attack.advanced_mia",
        "tensorflow_privacy",
        beside="immutabledict==4.3.1 statsmodels==0.15.0 patsy scikit-learn==1.6.1",
    ),
    "privacy-meter": Peer(
        "privacy-meter==1.0.1", "privacy_meter.audit", "privacy_meter", beside=TENSORFLOW
    ),
    "LeakPro": Peer("leakpro==0.0.1", "leakpro.attacks"),
}


def install(name: str, work: Path) -> tuple[str, str]:
    """Install a peer and import it: its interpreter, and why it cannot be used ("" if it can)."""
    peer = PEERS[name]
    home = work / name.replace(" ", "-")
    python = home / "bin/python"
    if not (home / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        site = home / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
        (site / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
        command = [python, "-m", "pip", "install", "-q", "--no-cache-dir", "--no-compile"]
        command += [peer.requirement, *peer.beside.split(), *["--no-deps"] * bool(peer.beside)]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if done.returncode:
            return str(python), last_line(done.stderr)
        (home / "installed").touch()
    command = [python, "-c", f"import {peer.module}"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    return str(python), last_line(done.stderr) if done.returncode else ""


def last_line(text: str) -> str:
    """The last line that is no warning."""
    lines = [line for line in text.strip().splitlines() if not line.startswith("WARNING")]
    return lines[-1].strip() if lines else "it ended without a word"


def environment() -> dict[str, str]:
    """One thread, no accelerator, and no compiled files beside the peers' sources."""
    quiet = {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONDONTWRITEBYTECODE": "1"}
    return {**os.environ, "OMP_NUM_THREADS": "1", **quiet}


def usable(name: str, installed: dict[str, tuple[str, str]]) -> bool:
    """Whether a peer imports and has something to be asked."""
    return bool(PEERS[name].adapter) and not installed[name][1]
