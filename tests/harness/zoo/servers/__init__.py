"""The servers of the zoo: one file for each architecture, started as `python -m servers.threads PORT [OPTION…]`."""
