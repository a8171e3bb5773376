"""Launcher of the scoring program: `python3 score.py IN OUT`.  See program.py for what it does.

The platforms run this file by its path, from a folder of any name, so relative imports have no
package to refer to.  The launcher makes one, so that all other modules work the same here and in
`mico_competition.scoring`.

As in 2022, `from mico_competition.scoring.score import score, tpr_at_fpr` works too.
"""

import importlib
import os
import sys
import types
from typing import TYPE_CHECKING, Any, Callable, List

if TYPE_CHECKING:
    from .metrics import score as score
    from .metrics import tpr_at_fpr as tpr_at_fpr

FPR_THRESHOLD = 0.1
FPR_THRESHOLD_LIST = [0.001, 0.01, 0.05, 0.1, 0.15, 0.2]
"""2022's names of the false positive rates of a score; `metrics.FPR_THRESHOLDS` has them too."""


def load(name: str) -> types.ModuleType:
    """The module `name` of this folder, imported from a package made of this folder."""
    parent = __package__
    if not parent:
        parent = "mico_scoring"
        package = types.ModuleType(parent)
        package.__path__ = [os.path.dirname(os.path.abspath(__file__))]
        sys.modules[parent] = package
    return importlib.import_module(parent + "." + name)


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in ("score", "tpr_at_fpr"):
            raise AttributeError("module %r has no attribute %r" % (__name__, name))
        return getattr(load("metrics"), name)


def load_main() -> Callable[[List[str]], int]:
    """The function `main` of program.py."""
    main: Callable[[List[str]], int] = load("program").main
    return main


def start(arguments: List[str]) -> int:
    """Run the program with one thread; return its exit code, or 1 if numpy is not installed."""
    # numpy would start as many threads as the worker has cores, for sums that need only one.
    for library in ("OPENBLAS", "OMP", "MKL"):
        os.environ.setdefault(library + "_NUM_THREADS", "1")
    try:
        main = load_main()
    except ImportError as error:
        # Images have more than one Python, and not all of them have numpy.
        version = ".".join(map(str, sys.version_info[:3]))
        print(
            "Not scored: Python %s at %s cannot import %s. Please tell the organisers."
            % (version, sys.executable, error.name or "a module"),
            file=sys.stderr,
        )
        return 1
    return main(arguments)


if __name__ == "__main__":
    sys.exit(start(sys.argv[1:]))
