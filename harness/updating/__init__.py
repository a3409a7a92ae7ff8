"""Transcripts brought in line with what their server says."""
