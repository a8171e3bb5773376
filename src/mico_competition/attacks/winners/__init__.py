"""The recipes of 2023's prize winners.

These mistakes of theirs are not repeated:

- Purchase-100's runner-up (`first-principles`) looked for a point's place in the dataset among
  places within parts of the split, and left n at CIFAR-10's 50,000 for Purchase-100, whose n is
  150,000: who counted as OUT was chance.  Membership here comes from each model's own metadata and
  seeds; `first-principles-sent` keeps the mistakes.
- SST-2's runner-up (`fleshman`), and 2022's kit, stretched the scores of each model to [0, 1] by
  themselves; predictions of all models are pooled, so the calibration was lost.  Scores here are
  mapped once for all models of a phase (`attacks.unit_interval`).
- The winner (`winner-2023`) chose a formula for each scenario by its score on the very train
  models, and CIFAR-10's runner-up (`suri`) tuned his classifier's features likewise: in-sample
  numbers.  Here targets are left out (`evaluation.cross_fitting`), and that is checked
  (`evaluation.leakage_check`).
"""
