"""Attacks on the documented bounds of the server, each bounded in count and time.

Parts: `target` is a server process, `load` many clients in one thread, `wire` what they send, `honest` and `witnesses` the
people beside an attack. `plan` is an attack as a value, `actions` its bytes, `play` a trial of it, `bounds` what is promised,
`variation` new attacks out of old ones, and `search` which to try next. `python -m tests.fire attack` searches and replays.
"""
