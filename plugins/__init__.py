"""Bundled plugins and the kit to write them."""
