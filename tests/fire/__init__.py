"""The server under fire: what tests/geventchat/test_fire_*.py share; `python -m tests.fire` runs the long forms."""
