"""The language of transcripts: text to a Script, and a Script to text and to a plan. Knows no server."""
