"""A script on a stage, turn by turn, and what came of it. The only package that knows both."""
