"""The package a plugin travels in: its manifest, archive and signature.

Server, agent and command line all read it, so it knows none of them.
"""
