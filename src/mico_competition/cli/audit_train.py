"""`mico audit-train SCENARIO`: flags -> audited training runs -> a verdict, 1 on alarm."""

from __future__ import annotations

import argparse
import json
import secrets
from pathlib import Path

from mico_competition.cli.train import add_data, add_settings, settings_of
from mico_competition.competition.table import SCENARIOS
from mico_competition.support.command_line import load_torch
from mico_competition.support.progress import stage
from mico_competition.support.reports import add_json, report, report_text
from mico_competition.support.terminal import with_alarms


def add_audit_train(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the flags of the trainer's audit."""
    parser.add_argument(
        "scenario",
        metavar="SCENARIO",
        help="a private scenario, whose settings are audited: "
        f"{', '.join(s.name for s in SCENARIOS.values() if s.private)}; digits_lo needs no data",
    )
    parser.add_argument(
        "--canaries",
        type=int,
        default=1000,
        help="gradient canaries; more give larger bounds (default: 1000)",
    )
    parser.add_argument(
        "--record_canaries",
        type=int,
        help="mislabelled, blank and large records (default: 200, fewer for large models)",
    )
    parser.add_argument(
        "--real_records",
        type=int,
        help="real records in the training set beside the canaries (default: len_training); with "
        "fewer the audit is quicker and the mechanism the same",
    )
    parser.add_argument(
        "--replay_steps",
        type=int,
        help="steps to repeat with torch.func (default: as many as take half a minute)",
    )
    parser.add_argument(
        "--level", type=float, default=0.95, help="confidence level of the audit (default: 0.95)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        help="seed of all random choices, to repeat an audit (default: a fresh one)",
    )
    add_json(parser, file=True)
    add_settings(parser)
    add_data(parser)
    parser.set_defaults(run=run_audit_train)


def run_audit_train(args: argparse.Namespace) -> int:
    """Train with canaries in every way that a fleet may, print the verdict, write the file.

    Return 1 on an alarm; if the claim holds, its probability is 1 - level at most.
    """
    settings = settings_of(args)
    load_torch()
    from mico_competition.audit.trainer.audit import audit_paths, claim_of_settings

    claim = claim_of_settings(settings)  # fail before reading data if there is no claim
    from mico_competition.audit.trainer.report import text, to_json
    from mico_competition.data.datasets import load_dataset
    from mico_competition.models.inputs import default_device, prepare
    from mico_competition.support.files import write_text

    dataset = load_dataset(settings.task, args.dataset_dir, args.download)
    data, _ = prepare(settings.task, dataset, settings.model_name)
    with stage("Audit"):
        audits = audit_paths(
            settings,
            data.to(default_device()),
            dirac=args.canaries,
            records=args.record_canaries,
            real=args.real_records,
            replay_steps=args.replay_steps,
            seed=secrets.randbits(62) if args.seed is None else args.seed,
            level=args.level,
            claim=claim,
            progress=True,
        )
    print(with_alarms(text(audits)))
    found = json.loads(to_json(audits))
    report("audit-train", **found)
    if isinstance(args.json, Path):
        write_text(args.json, report_text("audit-train", **found))
        print(f"Wrote {args.json}")
    return 1 if any(audit.alarms for audit in audits) else 0
