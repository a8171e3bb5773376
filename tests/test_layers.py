"""Imports run one way: to modules of lower layers, or of the same one without a circle."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

LAYERS = [
    [
        *(
            "cpus",
            "tracks",
            "splits",
            "spelling",
            "scoring",
            "attacks",
            "files",
            "scratch",
            "untrusted",
        ),
        *("zip_directory", "progress", "command_line", "output", "__init__"),
    ],
    ["layout", "hostile_zip"],
    ["lengths", "data", "solutions"],
    ["challenge", "challenge_datasets", "look", "nets", "submission", "token_cache"],
    ["models"],
    ["fingerprints", "inputs", "releases"],
    ["boards", "hub", "signals", "training"],
    ["audit", "baseline", "deeper", "evaluation", "learned", "whitebox"],
    ["bundles", "demo", "fleets"],
    ["cli"],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imported(node):
    """Dotted names, without that of the package, that an import statement may mean."""
    if not isinstance(node, ast.ImportFrom) or node.level:
        return
    package, _, inner = (node.module or "").partition(".")
    if package == "mico_competition":
        yield from ([inner] if inner else [])
        yield from (f"{inner}.{alias.name}".lstrip(".") for alias in node.names)


def modules():
    """Dotted name (that of the folder for its __init__.py) and path of every module."""
    for path in sorted((ROOT / "src/mico_competition").rglob("*.py")):
        relative = path.relative_to(ROOT / "src/mico_competition").with_suffix("")
        parts = relative.parts[:-1] if len(relative.parts) > 1 and path.stem == "__init__" else None
        yield ".".join(parts or relative.parts), path


def top(name):
    return name.split(".")[0]


def test_every_module_has_a_layer():
    assert {top(name) for name, _ in modules()} | {"scoring"} == set(LEVEL)


def test_no_import_upward():
    lazy_surface = "__init__"
    for name, path in modules():
        for node in ast.walk(ast.parse(path.read_text())) if name != lazy_surface else ():
            for other in filter(lambda other: top(other) in LEVEL, imported(node)):
                assert LEVEL[top(other)] <= LEVEL[top(name)], f"{name} imports {other}, above it"


def test_no_circle():
    """Among modules, by what they import when they are imported."""
    names = {name for name, _ in modules()}
    graph = {
        name: {o for node in ast.parse(path.read_text()).body for o in imported(node)} & names
        for name, path in modules()
    }
    graph = {name: others - {name} for name, others in graph.items()} | {"__init__": set()}
    done = set()
    while ready := {n for n in graph if n not in done and graph[n] <= done}:
        done |= ready
    assert done == set(graph), f"a circle among {sorted(set(graph) - done)}"


def test_scoring_imports_nothing_of_the_package():
    for path in (ROOT / "scoring").glob("*.py"):
        assert "mico_competition" not in {
            (node.module or "").split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom) and node.level == 0
        }, path
