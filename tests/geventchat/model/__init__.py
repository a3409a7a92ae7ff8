"""The chat as docs/protocols.md describes it, written a second time: who receives what, and nothing of how.

It imports nothing from geventchat, so a mistake has to be made twice to go unnoticed. Used by the generated
conversations (test_model.py), by the property test of delivery and by the simulated weeks of tests/fire.
"""
