"""Tests of the terminal client, in small and in real terminals."""
