"""Sections of docs/ATTACKS.md: what is left to find under privacy, and what decodes cost."""

from __future__ import annotations

import json
from pathlib import Path

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
KNOWN = ("start and trajectory", "start", "trajectory", "neither")
SHOWN = (*(f"{what} known" for what in KNOWN), "the attack's")
DECODES = ("joint", "both layers", "Adam's steps", "final gradients")


def oracles() -> str:
    """Decodes that know more than an attacker, from table_oracle.json and image_oracle.json."""
    tables = _read("table_oracle.json")
    if not tables:
        return ""
    lines = [
        "## What the last iterate shows under privacy",
        "",
        "TPR at 10 % FPR in percent over all records of one model that was trained privately as in "
        "the named scenario, by a linear decode of its final weights "
        "(`benchmarks/table_oracle.py`), with the best ridge in hindsight. Second figures are with "
        "the model's outputs, compared with those of the fleet's models; `outputs` is without any "
        "decode. Nobody has the start of a model or its trajectory: the gap between `outputs` and "
        "the first of these columns shows what is there to find in the weights of a last iterate "
        "by a linear detector, and the last column is what the attack's own kernel reaches "
        "without shadow models, which also tell how models differ by chance. The standard error "
        "of a figure, of one model, is about 0.6 points at 20,000 records and 0.2 at full size. "
        "The trajectory "
        "without the start is no upper limit, as gradients along the path also meet the start, "
        "which is then noise.",
        "",
        "| scenario | seed | noise multiplier | outputs | "
        + " | ".join(SHOWN)
        + " | clipped at the end |",
        "|---|---|---|---|" + "---|" * (len(SHOWN) + 1),
    ]
    for row in tables:
        cells = [row["bed"], str(row["seed"]), f"{row['noise_multiplier']:.3f}"]
        cells += [f"{row['outputs']:.1f}" if "outputs" in row else ""]
        cells += [
            " / ".join(f"{row[name]:.1f}" for name in (key, f"{key}, outputs") if name in row)
            for key in SHOWN
        ]
        cells.append(f"{100 * row['clipped']:.0f} %")
        lines.append(f"| {' | '.join(cells)} |")
    for row in _read("image_oracle.json"):
        best = max(value for key, value in row.items() if key.startswith("joint"))
        lines += [
            "",
            f"The same for a CNN of `images_real_lo` with start and trajectory known "
            f"(`benchmarks/image_oracle.py`, seed {row['seed']}): {100 * best:.1f}.",
        ]
    return "\n".join(lines) + "\n"


def costs() -> str:
    """CPU seconds of decodes by the number of records, from decode_cost.json."""
    found = _read("decode_cost.json")
    if not found:
        return ""
    rows = found["rows"]
    lines = [
        "## What the decodes cost",
        "",
        f"CPU seconds a model, in brackets the products with a kernel, of 600-128-100 models of "
        f"`full_inf` at the first N records, one thread, mean of {rows[0]['models']} models, torch "
        f"{found['torch']} (`benchmarks/decode_cost.py`). All ridges of a decode are solved "
        "together; with more records than weights those below 1 are left out. Traces include "
        "the models' outputs and the whitening that they share. Plain training takes the last two "
        "decodes, noisy training the first two. Memory is the process's own.",
        "",
        "| N | traces | " + " | ".join(DECODES) + " | plain | noisy | memory, GB |",
        "|---|" + "---|" * (len(DECODES) + 4),
    ]
    for row in rows:
        cells = [f"{row['records']:,}", f"{row['traces']:.1f}"]
        cells += [f"{row[name]:.1f} ({row[f'{name}, products']})" for name in DECODES]
        joint, both, *plain = (row[name] for name in DECODES)
        sums = (row["traces"] + sum(decodes) for decodes in (plain, (joint, both)))
        cells += [*(f"{own:.1f}" for own in sums), f"{row['memory_gb']:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _read(name: str) -> list | dict:
    """The file's content; empty if it is not there."""
    path = RESULTS / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
