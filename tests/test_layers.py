"""Imports run one way: to modules of lower layers, or of the same one without a circle."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

LAYERS = [
    ["tracks", "splits", "scoring", "attacks", "secure_random", "accounting", "__init__"],
    ["layout", "settings", "ghost_norms"],
    [
        "lengths",
        "accounting_check",
        "bookkeeping",
        "arrays",
        "checkpoints",
        "plain_pickle",
        "packed_cache",
        "downloads",
        "archives",
        "byte_search",
        "zip_directory",
        "hostile_zip",
    ],
    [
        "text_models",
        "cifar10_files",
        "purchase100_files",
        "sst2_files",
        "synthetic",
        "look",
        "token_cache",
        "hub_client",
        "hub_listing",
    ],
    ["challenge_datasets", "models"],
    ["inputs", "dpsgd", "challenge", "small_roberta"],
    ["stack", "streams", "signals", "submission", "model_folder"],
    ["commitments", "reveal", "public_files", "leak_views", "leak_patterns", "leak_values"],
    ["leak_forms", "leak_tree", "leak_check"],
    ["train"],
    ["baseline", "release", "train_many"],
    ["truth_tree", "leaderboard_form", "leaderboard", "leaderboard_add"],
    ["leaderboard_charts", "leaderboard_pages", "leaderboard_site", "score_workers", "score_all"],
    ["hub", "dataset_card", "released", "publish"],
    ["logo", "bundle_facts", "bundle_files", "bundle_html", "bundle_yaml", "bundle_pages"],
    ["bundle_rules", "bundle_check", "bundle", "rehearse_worker", "rehearse", "rehearse_text"],
    ["ledger", "shared_data", "fleet_lock"],
    ["fleet", "fleet_status"],
    ["ray_link", "ray_task"],
    ["fleet_workers", "fleet_ray"],
    ["demo"],
    ["cli", "cli_train", "cli_bundle", "cli_fleet", "cli_hub", "cli_release", "cli_leaderboard"],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imports(path):
    """Modules of the package that `path` imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mico_competition."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.ImportFrom) and node.module == "mico_competition":
            yield from (alias.name for alias in node.names if alias.name in LEVEL)


def top_level_imports(path):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mico_competition."):
            yield node.module.split(".")[1]


def modules():
    for path in sorted((ROOT / "src/mico_competition").rglob("*.py")):
        relative = path.relative_to(ROOT / "src/mico_competition")
        yield relative.parts[0].removesuffix(".py"), path


def test_every_module_has_a_layer():
    assert {name for name, _ in modules()} | {"scoring"} == set(LEVEL)


def test_no_import_upward():
    lazy_surface = "__init__"
    for name, path in modules():
        for other in imports(path) if name != lazy_surface else ():
            assert LEVEL[other] <= LEVEL[name], f"{name} imports {other}, which is above it"


def test_no_circle():
    graph = {}
    for name, path in modules():
        graph.setdefault(name, set()).update(set(top_level_imports(path)) - {name})
    graph["__init__"] = set()
    done = set()
    while ready := {n for n in graph if n not in done and graph[n] <= done | {"scoring"}}:
        done |= ready
    assert done == set(graph), f"a circle among {sorted(set(graph) - done)}"


def test_scoring_imports_nothing_of_the_package():
    for path in (ROOT / "scoring").glob("*.py"):
        assert "mico_competition" not in {
            (node.module or "").split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom) and node.level == 0
        }, path
