"""What platforms require of a bundle, a rule at a time: the linter's knowledge.

fault.py: the faults that rules find; files.py: images, pages, programs, data; version2.py:
Codabench's form, with phases.py and board.py; version15.py: CodaLab's form, on legacy CodaLab;
scenarios.py: the board against the truth. Our own rules: scored.py, what each phase is scored with;
truth.py, that it can be; leaks.py, what scores and files reveal about labels.

A rule is here if somebody who edits a bundle by hand may break it: what `mico bundle` never writes
and nobody has a reason to add is left to the platform. Every rule is a generator of faults, and
never raises errors for the content of a bundle. The facts, and the platforms' words for them, were
read in the platforms' source and seen when their code ran.
"""
