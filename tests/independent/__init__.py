"""Thirteen chat servers by another author, written from the page about the protocols alone: README.md."""
