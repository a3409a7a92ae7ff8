"""The chat as its protocol page says it is, written down a second time: who hears what, and nothing of how.

Made from docs/protocols.md alone. It imports nothing of geventchat, so that both can be wrong only by themselves.
"""
