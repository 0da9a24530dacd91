"""The user messages of student and teacher, word for word; {problem}, {answer}, {solution} are
replaced.

Constants alone. Sources: the student's is the evaluation prompt and the answer teacher's the
diagnostic prompt of arXiv 2605.21606 (appendix A); the solution teacher's is OPSD's (arXiv
2601.18734).
"""

from __future__ import annotations

STUDENT_PROMPT = (
    "{problem}\n\nPlease reason step by step, and put your final answer within \\boxed{}."
)
TEACHER_ANSWER_PROMPT = (
    "You are a privileged teacher. Solve the problem and end your solution with the correct boxed "
    "answer.\nProblem: {problem}\nPrivileged ground-truth final answer: {answer}\n"
    "Use the ground-truth answer above. Produce a complete step-by-step solution that ends with "
    "\\boxed{{answer}}."
)
TEACHER_SOLUTION_PROMPT = (
    "Problem: {problem}\n\nHere is a reference solution to this problem:\n"
    "=== Reference Solution Begin ===\n{solution}\n=== Reference Solution End ===\n\n\n"
    "After reading the reference solution above, make sure you truly understand the reasoning "
    "behind each step — do not copy or paraphrase it. Now, using your own words and independent "
    "reasoning, derive the same final answer to the problem above. Think step by step, explore "
    "different approaches, and don't be afraid to backtrack or reconsider if something doesn't "
    "work out:\n\nPlease reason step by step, and put your final answer within \\boxed{}."
)
