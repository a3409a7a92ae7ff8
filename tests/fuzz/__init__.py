"""Coverage-guided fuzzing of what reads bytes: the targets, a corpus for each, and `python -m tests.fuzz` to run them."""
