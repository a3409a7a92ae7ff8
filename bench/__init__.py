"""The benchmark: geventchat beside the obvious ways to build the same thing, measured in one run.

`python -m bench` starts each server on one core and the load generator on the other. Nothing here is installed with
the packages. The benchmark knows servers only as commands to run and does not import geventchat.
"""
