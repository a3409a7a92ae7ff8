"""Transcripts played at servers that know nothing of the harness: a folder for each, with what starts it."""
