"""Mutation testing of scripts: which mistakes of a server would a script not notice?"""
