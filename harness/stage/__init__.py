"""Where a script is played: clients, a target, a fence and a clock together. Knows no script."""
