"""Conversations nobody wrote: drawn from a model of the protocol, played, and shrunk where server and model differ."""
