"""Imports run one way: to modules of lower layers, or of the same one without a circle."""

import ast
import re
from pathlib import Path

from mico_competition import attacks
from mico_competition.attacks import registry

ROOT = Path(__file__).resolve().parent.parent

# From the bottom up.  A module belongs to the longest name here that its own name begins with.
LAYERS = [
    ["scoring", "support"],
    [
        *(
            "competition.code",
            "competition.columns",
            "competition.names",
            "competition.reader",
            "competition.row_checks",
            "competition.rows",
            "competition.table",
            "competition.table_reader",
        ),
        *("competition.toml_lines",),
    ],
    ["data", "attacks.scores"],
    ["competition"],
    ["models"],
    ["challenge_datasets", "mico"],  # modules of 2022, which import the names of today
    ["training", "release"],
    # A claimed epsilon and the TPR that it permits need no attack.
    ["signals", "audit.checked", "audit.claims", "audit.limits", "audit.tradeoff"],
    ["shadows"],
    ["attacks", "attacks.scores.quantile"],  # it takes a problem, the other scores take arrays
    ["attacks.registry", "attacks.catalogue"],
    ["evaluation"],
    ["audit"],
    ["hosting"],
    ["fleets", "demo"],
    ["benchmark"],
    ["cli"],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
SURFACE = "__init__"  # the package's own names, which are imported when they are first used
STRANGERS_CODE = "competition.code"  # imports the modules that a competition's file names


def level_of(name):
    while name not in LEVEL:
        name = name.rpartition(".")[0]
        if not name:
            return None
    return LEVEL[name]


def modules():
    """Dotted name (that of the folder for its __init__.py) and path of every module."""
    for path in sorted((ROOT / "src/mico_competition").rglob("*.py")):
        parts = path.relative_to(ROOT / "src/mico_competition").with_suffix("").parts
        if len(parts) > 1 and parts[-1] == "__init__":
            parts = parts[:-1]
        yield ".".join(parts), path


NAMES = {name for name, _ in modules()}


def module_in(text):
    """The module that a string names, as it stands or before a function; None if it is other text.

    >>> module_in("mico_competition.attacks.stacking.neural:neural")
    'attacks.stacking.neural'
    """
    found = re.fullmatch(r"mico_competition\.([a-z_0-9.]+)(:\w+)?", text)
    return found[1] if found else None


def strings(path):
    """All texts that stand in a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def imported(tree):
    """Modules that a file imports: at its head, in functions, and by a name in a string."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level:
            package, _, inner = (node.module or "").partition(".")
            if package == "mico_competition":
                for alias in node.names:
                    full = f"{inner}.{alias.name}".strip(".")
                    yield full if full in NAMES else inner
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("mico_competition."):
                    yield alias.name.partition(".")[2]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            module = module_in(node.value)
            if module in NAMES:
                yield module


def imports(*, head_only=False):
    """Every module but the surface -> what it imports."""
    found = {}
    for name, path in modules():
        tree = ast.parse(path.read_text())
        if head_only:
            tree = ast.Module([node for node in tree.body if not isinstance(node, ast.If)], [])
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef):
                    node.body = []
        if name != SURFACE:
            found[name] = set(imported(tree)) - {name, ""}
    return found


def test_every_module_has_a_layer():
    assert {name for name in NAMES if level_of(name) is None} == {SURFACE}


def test_no_import_upward():
    for name, others in imports().items():
        for other in others:
            level = level_of(other)
            assert level is None or level <= level_of(name), f"{name} imports {other}, above it"


def test_imports_in_functions_and_in_strings_are_seen():
    tree = ast.parse(
        "def f():\n    from mico_competition.cli import train\n"
        "    import_module('mico_competition.demo')\n    import mico_competition.fleets.lock\n"
    )
    assert set(imported(tree)) == {"cli.train", "demo", "fleets.lock"}


def test_modules_are_imported_by_whole_names():
    """A name put together when it is used could not be seen above.

    Two tables hold names, each as one string: the registry of attacks, and the functions of
    arrays that `mico_competition.attacks` gives.
    """
    tables = {
        "attacks": {f"{home}:{name}" for name, home in attacks._HOME.items()},
        "attacks.registry": {row.function for row in registry.TABLE} - {""},
    }
    paths = dict(modules())
    for name, path in paths.items():
        if name in (SURFACE, STRANGERS_CODE) or name in tables:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else None
            called = node.func.id if isinstance(node.func, ast.Name) else called
            if called in {"import_module", "__import__"}:
                assert isinstance(node.args[0], ast.Constant), f"{name} imports by a made-up name"
    for table, entries in tables.items():
        whole = set(strings(paths[table]))
        for entry in entries:
            assert entry in whole or entry.partition(":")[0] in whole, f"{table} makes up {entry}"
            module, function = module_in(entry), entry.partition(":")[2]
            assert level_of(module) <= level_of(table) and module != table
            assert function in defined(paths[module]), f"{table}: there is no {entry}"
    assert all(level_of(module_in(row)) < LEVEL["attacks.registry"] for row in entries)


def defined(path):
    """The names of a module's functions and constants."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def test_no_circle():
    """Among modules, by what they import when they are imported."""
    graph = {name: others & NAMES for name, others in imports(head_only=True).items()}
    graph[SURFACE] = set()
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
