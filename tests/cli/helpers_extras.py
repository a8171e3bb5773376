"""Runs code as if only `pip install mico_competition`, without extras, had been given."""

import subprocess
import sys

# What `pip install mico_competition` without extras does not bring.
EXTRAS = (
    *("opacus", "cryptography"),  # train
    *("transformers", "datasets", "safetensors", "tokenizers", "pyarrow"),  # text
    *("IPython", "ipykernel", "notebook"),  # notebook
    "ray",  # cluster
)


def run_without_extras(code):
    blocked = f"import sys; sys.modules.update(dict.fromkeys({EXTRAS!r}));"
    return subprocess.run([sys.executable, "-c", blocked + code], capture_output=True, text=True)
