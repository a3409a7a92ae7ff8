"""Plays scripts on stages, turn by turn, and judges the result. The only package that knows both."""
