"""Does a checkpoint solve more problems than another, and can this many problems tell?

Imports nothing at the door: `settings`, `models`, `sampling`, `grading`, `metrics`, `comparison`,
`report`, `runner`.
"""
