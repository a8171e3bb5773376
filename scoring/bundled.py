"""The steps to which the scoring program rounds scores in a competition bundle; else None.

`mico bundle`, which packs the files that an organiser uploads, replaces this file by one with the
steps of `settings.json`.  So the program rounds scores even if `settings.json` is lost or changed
later (settings.py).
"""

from typing import Dict, Optional

STEPS: Optional[Dict[str, float]] = None
