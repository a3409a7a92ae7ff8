"""Transcripts played against servers written by others: a folder for each, with the command that starts it."""
