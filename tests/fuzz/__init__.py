"""Coverage-guided fuzzing of everything that reads bytes: targets, a corpus for each, and `python -m tests.fuzz`."""
