"""The benchmark: geventchat beside the obvious ways to build the same thing, measured in one run.

`python -m bench` starts each server on one core and the load on the other. Nothing here is installed with the
packages, and it knows servers only as commands to run: it must not import geventchat.
"""
