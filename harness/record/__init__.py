"""Live sessions recorded as transcripts that pass."""
