"""One suite, many implementations of one protocol: a table, server by script, with the first divergence of each."""
