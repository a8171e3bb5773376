"""`public-names`: the docstrings of the public names whose modules are in the given packages.

The names come from the package's own table, so a new one appears without an edit of the pages:

    .. public-names:: mico_competition
       :homes: evaluation audit
"""

from importlib import import_module
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


def names_of(module_name: str, homes: str = "") -> list[str]:
    """The sorted public names of a module; with `homes`, those that live in these packages."""
    module = import_module(module_name)
    if not homes:
        return sorted(module.__all__)
    found = []
    for name in module.__all__:
        home = module._HOME[name].removeprefix("mico_competition.")
        if any(f"{home}.".startswith(f"{folder}.") for folder in homes.split()):
            found.append(name)
    return sorted(found)


def directive_for(module_name: str, name: str) -> list[str]:
    """The lines of reStructuredText that document one name."""
    value = getattr(import_module(module_name), name)
    if isinstance(value, type):
        return [
            f".. autoclass:: {module_name}.{name}",
            "   :members:",
            "   :inherited-members: dict,Module,Exception,ValueError,tuple",
            "",
        ]
    if callable(value):
        return [f".. autofunction:: {module_name}.{name}", ""]
    home = import_module(module_name)._HOME[name]  # only there has a value a docstring
    return [f".. autodata:: {home}.{name}", "   :no-value:", ""]


class PublicNames(SphinxDirective):
    """The documentation of each name, in alphabetical order."""

    required_arguments = 1
    option_spec: ClassVar = {"homes": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        """The nodes of all names."""
        module = self.arguments[0]
        holder = nodes.Element()
        for name in names_of(module, self.options.get("homes", "")):
            lines = StringList(directive_for(module, name), source=f"{module}.{name}")
            self.state.nested_parse(lines, 0, holder)
        return list(holder.children)


def without_constructor(
    app: Sphinx, what: str, name: str, value: Any, options: Any, signature: str, returns: str
) -> tuple[str, str] | None:
    """Leave out the arguments of a class that users make by its class methods only."""
    return ("", "") if what == "class" and "Make one with" in (value.__doc__ or "") else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("autodoc-process-signature", without_constructor)
    app.add_directive("public-names", PublicNames)
    return {"parallel_read_safe": True}
