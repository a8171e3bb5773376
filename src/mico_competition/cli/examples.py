"""Examples at the end of each verb's --help: what a command does, and the command.

A test parses every one.
"""

from __future__ import annotations

EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "demo": (
        ("30 models a scenario and phase, in ./demo", "mico demo"),
        ("a quick look", "mico demo --models 6 --out trial"),
    ),
    "tracks": (
        ("the scenarios of 2022, and those of the demonstration", "mico tracks"),
        ("those of a competition of your own", "mico tracks --competition mine/competition.toml"),
    ),
    "download": (
        ("all models of a challenge of 2022", "mico download purchase100"),
        ("a part of it", "mico download purchase100 --phase train --models 0-9"),
        ("how large it is", "mico download cifar10 --dry_run"),
    ),
    "attack": (
        ("the loss threshold", "mico attack purchase100 --dataset_dir data"),
        ("another attack, on one phase", "mico attack lira purchase100 --phase dev"),
        ("your own", "mico attack purchase100 --attack my_attack.py:score"),
    ),
    "check": (
        ("the predictions of `mico attack`", "mico check purchase100"),
        ("a zip, before you upload it", "mico check purchase100 --zip predictions.zip"),
    ),
    "submit": (
        ("writes predictions_purchase100.zip", "mico submit purchase100"),
        ("predictions from elsewhere", "mico submit purchase100 --predictions mine --zip a.zip"),
    ),
    "score": (
        ("on phase train, whose members are public", "mico score purchase100"),
        ("with ROC curves", "mico score purchase100 --html report.html"),
        ("for a program", "mico score purchase100 --json"),
    ),
    "verify": (
        ("did every file arrive as it was released?", "mico verify purchase100"),
        ("are these the labels of the release?", "mico verify purchase100 revealed_dev.json"),
    ),
    "attacks": (
        ("all attacks, with what they need", "mico attacks"),
        ("one of them, with its source", "mico attacks lira --wide"),
    ),
    "signals": (
        ("the challenge points of all models", "mico signals purchase100 --dataset_dir data"),
        ("all records, for white-box attacks", "mico signals purchase100 --records all"),
    ),
    "evaluate": (
        ("two attacks with intervals", "mico evaluate purchase100 --attack lira --attack rmia"),
        (
            "one scenario, as a page",
            "mico evaluate demo/released/digits --scenario digits_lo --html page.html",
        ),
        ("your own models, from numpy.savez", "mico evaluate arrays.npz --attack lira"),
        ("fewer shadow models", "mico evaluate purchase100 --attack eb --shadows 4,8,16"),
    ),
    "benchmark": (
        (
            "your attack beside the others, in minutes",
            "mico benchmark --attack my_attack.py:attack",
        ),
        ("a named attack on larger fleets", "mico benchmark --tier medium --attack rmia"),
    ),
    "audit": (
        ("with the strongest attack", "mico audit purchase100 --dataset_dir data"),
        ("by scores of your own", "mico audit scores.npz --delta 1e-5"),
        ("by predictions that you have", "mico audit purchase100 --predictions mine"),
    ),
    "audit-train": (
        ("a minute with OMP_NUM_THREADS=1", "mico audit-train digits_lo"),
        ("larger bounds", "mico audit-train digits_lo --canaries 5000 --json audit.json"),
    ),
    "train": (
        ("one model", "mico train --scenario purchase100_lo --model_id 0 --dataset_dir data"),
        ("its settings and noise only", "mico train --scenario purchase100_lo --dry_run"),
    ),
    "fleet": (
        (
            "200 models; the same command goes on after a stop",
            "mico fleet purchase100_lo --models 0-199 --out trained --dataset_dir data",
        ),
        ("how far it is", "mico fleet status trained"),
        ("what two organisers trained, as one", "mico fleet merge ours theirs --out trained"),
        (
            "a model that was wrong is to be trained again",
            "mico fleet purchase100_lo --new_seeds 12 --out trained",
        ),
    ),
    "init": (("competition.toml, and a module for your data and model", "mico init mine"),),
    "release": (
        ("what participants may see", "mico release trained --to released"),
        ("afterwards: adds the labels", "mico release trained --to released --reveal dev"),
        (
            "replaces a model that was wrong, and records it for everybody",
            'mico release trained --to released --amend "model 100 had other records"',
        ),
    ),
    "leaks": (("search a release again", "mico leaks released --trained trained"),),
    "publish": (
        ("show the page, upload nothing", "mico publish released/digits me/digits --dry_run"),
        ("upload", "mico publish released/digits me/digits --private"),
    ),
    "reference": (
        (
            "what the scoring program compares with",
            "mico reference trained --challenge digits --phase dev --to scoring_input/ref",
        ),
    ),
    "bundle": (
        (
            "for Codabench",
            "mico bundle trained --challenge digits --out bundle.zip --dev_start "
            '"2027-01-04 12:00:00" --final_start "2027-02-04 12:00:00" --end "2027-02-11 12:00:00"',
        ),
        ("the faults of a bundle", "mico bundle --check bundle.zip"),
    ),
    "rehearse": (("without docker", "mico rehearse bundle.zip predictions_digits.zip"),),
    "score-all": (
        ("a folder of zips", "mico score-all submissions --truth trained --out leaderboard"),
    ),
    "leaderboard": (
        ("one submission", "mico leaderboard add predictions_digits.zip --name me --truth trained"),
        ("faults of entries", "mico leaderboard check leaderboard"),
        ("the site", "mico leaderboard build leaderboard --out site"),
    ),
    "reveal": (("labels and seeds", "mico reveal trained --phase dev --to revealed_dev.json"),),
    "completion": (
        (
            "for bash, from the next shell on",
            "mico completion bash > ~/.local/share/bash-completion/completions/mico",
        ),
        ("for zsh, in a folder of $fpath", "mico completion zsh > ~/.zfunc/_mico"),
    ),
}


def examples_of(verb: str) -> str:
    """The examples of a verb as text."""
    lines = ["examples:"]
    for what, command in EXAMPLES[verb]:
        lines += [f"  # {what}", f"  {command}"]
    return "\n".join(lines)
