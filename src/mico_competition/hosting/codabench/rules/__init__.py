"""What platforms require of a bundle, a rule at a time: the linter's knowledge.

fault.py: what a rule finds;  files.py: images, pages, programs, data;  version2.py: Codabench's
form, with phases.py and board.py;  version15.py: CodaLab's form, on either platform;
scenarios.py: the board against the truth.  Our own rules: scored.py, what each phase is scored
with;  truth.py, that it can be;  leaks.py, what scores and files tell of labels.

Every rule is a generator of faults that never raises for what a bundle holds.  The facts, and the
platforms' words for them, were read in the platforms' source and seen when their code ran.
"""
