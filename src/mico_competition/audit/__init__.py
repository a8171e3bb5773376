"""What an attack proves of a mechanism, what the mechanism promises, and what it allows.

`ceilings_of` is what notebooks use; the rest is behind `mico audit` and `mico audit-train`.
"""

from mico_competition.audit.limits import ceilings_of

__all__ = ["ceilings_of"]
