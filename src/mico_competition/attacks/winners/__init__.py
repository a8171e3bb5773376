"""The recipes of 2023's prize winners.

These mistakes of theirs are not repeated:

- Purchase-100's runner-up (`first-principles`) looked up a point's index in the dataset among
  indices within parts of the split, and left n at CIFAR-10's 50,000 for Purchase-100, whose n is
  150,000: the OUT sets were random. Membership here comes from each model's own metadata and seeds;
  `first-principles-sent` keeps the mistakes.
- SST-2's runner-up (`fleshman`), and 2022's kit, scaled the scores of each model to [0, 1]
  separately; predictions of all models are pooled, so the calibration was lost. Scores here are
  mapped by one function for all models of a phase (`attacks.unit_interval`).
- The winner (`winner-2023`) chose a formula for each scenario by its score on the evaluated train
  models, and CIFAR-10's runner-up (`suri`) tuned his classifier's features in the same way:
  in-sample results. Here targets are left out (`evaluation.cross_fitting`), and that is checked
  (`evaluation.leakage_check`).
"""
