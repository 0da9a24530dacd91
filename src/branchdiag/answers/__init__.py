"""Final answers: extraction of the last complete box, grading in killable workers, clusters.

Knows nothing of phases, engines or run files. Nothing here imports torch; sympy and math-verify are
imported only inside worker processes (`branchdiag.answers.worker`).
"""
