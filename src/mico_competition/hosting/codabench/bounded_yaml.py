"""Reads untrusted YAML within limits, since a few lines can expand to any number of values."""

from __future__ import annotations

from typing import Any

MAX_NODES = 50_000
MAX_DEPTH = 50
_MAX_MERGES = 20


def load_yaml(text: str | bytes) -> Any:
    """Parse a YAML text into plain types.

    Raises:
        ValueError, yaml.YAMLError: if it is not YAML, has more than `MAX_NODES` values (also by
            aliases or merges), or nests them deeper than `MAX_DEPTH`.  An alias counts as one
            value, so the result may be of any size if it is walked through as a tree.
    """
    import yaml

    class Bounded(yaml.SafeLoader):  # type: ignore[misc] # yaml has no types
        nodes = depth = merges = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            self.nodes += 1
            self.depth += 1
            if self.nodes > MAX_NODES or self.depth > MAX_DEPTH:
                raise yaml.YAMLError(f"over {MAX_NODES:,} values, or nested over {MAX_DEPTH} deep")
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

        def flatten_mapping(self, node: Any) -> None:
            for key, value in node.value:
                if key.tag == "tag:yaml.org,2002:merge":
                    self.merges += len(value.value) if isinstance(value, yaml.SequenceNode) else 1
            if self.merges > _MAX_MERGES:
                raise yaml.YAMLError(f"over {_MAX_MERGES} merged mappings")
            super().flatten_mapping(node)
            if len(node.value) > MAX_NODES:
                raise yaml.YAMLError(f"over {MAX_NODES:,} merged keys")

    return yaml.load(text, Bounded)
