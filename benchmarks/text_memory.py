#!/usr/bin/env python3
"""Peak memory of a private step of roberta-base's shape: docs/results/text_memory.json.

    PYTHONPATH=src python benchmarks/text_memory.py

Each row is a process of its own that takes one private step (book-keeping, AdamW) on a logical
batch of so many physical ones, of 64 sentences of 67 tokens each, with random weights and tokens.
The peak is the largest resident set of the process, interpreter and libraries included.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

RESULT = Path(__file__).resolve().parents[1] / "docs" / "results" / "text_memory.json"
SENTENCES, TOKENS = 64, 67
SIZES = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}


def main() -> None:
    """Measure each number of physical batches in a process of its own, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--physical", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--one", type=int, help="measure this number in this process, and print it")
    args = parser.parse_args()
    if args.one is not None:
        print(json.dumps(measure(args.one)))
        return
    rows = []
    for count in args.physical:
        command = [sys.executable, __file__, "--one", str(count)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
        report = {
            "command": "PYTHONPATH=src python benchmarks/text_memory.py",
            "machine": f"{platform.machine()}, CPU",
            "model": {**SIZES, "vocab_size": 50_265, "weights": "random"},
            "batch": {"sentences": SENTENCES, "tokens": TOKENS},
            "rows": rows,
        }
        args.out.write_text(json.dumps(report, indent=2) + "\n")


def measure(count: int, **sizes: Any) -> dict[str, Any]:
    """The peak memory of this process after a step of `count` physical batches."""
    import torch
    from transformers import RobertaConfig, RobertaForSequenceClassification

    from mico_competition.training import private_checks
    from mico_competition.training.dpsgd import DPSGD

    config = RobertaConfig(vocab_size=50_265, max_position_embeddings=514, **{**SIZES, **sizes})
    config.intermediate_size = 4 * config.hidden_size
    model = RobertaForSequenceClassification(config).train()
    trainer = DPSGD(
        model,
        torch.optim.AdamW(model.parameters(), lr=1e-5),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        expected_batch_size=1024,
        max_physical_batch_size=SENTENCES,
        fixed_shapes=True,
    )
    # The checks before a first step take more passes, none of them over more than this step's.
    trainer.checks.checked = [private_checks._computes(each) for each in model.modules()]
    records = SENTENCES * count
    ids = torch.randint(5, 50_265, (records, TOKENS))
    labels = torch.randint(2, (records,))
    before, started = peak(), time.perf_counter()
    trainer.step(
        torch.arange(records),
        lambda at: {"input_ids": ids[at], "attention_mask": torch.ones_like(ids[at])},
        labels,
    )
    return {
        "physical_batches": count,
        "peak_gb": round(peak(), 3),
        "before_the_step_gb": round(before, 3),
        "parameters": sum(p.numel() for p in model.parameters()),
        "attention": config._attn_implementation,
        "seconds": round(time.perf_counter() - started, 1),
        "torch": torch.__version__,
    }


def peak() -> float:
    """The largest resident set of this process so far, in GB of 10^9 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
