"""Empirical lower bounds on epsilon, the claimed epsilon, and the TPR that it permits.

Notebooks use `tpr_limits_of`; `mico audit` and `mico audit-train` use the rest.
"""

from mico_competition.audit.limits import tpr_limits_of

ceilings_of = tpr_limits_of
"""The name that `tpr_limits_of` had in earlier versions."""

__all__ = ["ceilings_of", "tpr_limits_of"]
