"""Statistics of the diagnosis: rankings, cluster bootstrap, the horizon null, curves, the finding.

Arrays in, plain dataclasses and rows out. Knows nothing of files, models, phases or torch. Two
dimension letters are used throughout: C candidates (rows) and P problems (the clusters); B is a
bootstrap resample or a permutation, K a forced child, A an arm.
"""
