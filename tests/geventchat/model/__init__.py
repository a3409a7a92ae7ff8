"""A model of the chat, written from docs/protocols.md: which client receives what, without any of the mechanism.

It imports nothing from geventchat, so only the same mistake in both would go unnoticed. Used by the generated
conversations (test_model.py), by the property test of delivery and by the simulated weeks of tests/fire.
"""
