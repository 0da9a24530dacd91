"""What a person gets to see of a run: the report document, figures, one page, the terminal.

Reads tables and statistics that others made, and computes nothing but how to show them.
"""
