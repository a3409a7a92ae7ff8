"""Stress tests: scenarios shared by tests/geventchat/test_fire_*.py; `python -m tests.fire` runs their long forms."""
