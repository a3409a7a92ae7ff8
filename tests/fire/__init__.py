"""The server under fire: what the tests in tests/geventchat/test_fire_*.py share, and `python -m tests.fire` for the long forms."""
