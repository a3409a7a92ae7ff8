"""A script on a stage: played turn by turn, compared, judged. The only package that knows both."""
