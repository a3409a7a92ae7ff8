"""Live sessions, written down as transcripts that pass."""
