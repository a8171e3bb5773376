"""The steps that a bundle's program rounds scores to; None where this is no bundle's program.

`mico bundle` writes this file anew into each bundle, with what `settings.json` says.  The program
cannot start without it, so it knows that it is a bundle's even where `settings.json` was lost or
changed, and rounds the scores all the same (settings.py).
"""

from typing import Dict, Optional

STEPS: Optional[Dict[str, float]] = None
