"""Tests of the terminal client: its parts alone, and the program in real terminals and pipes."""
