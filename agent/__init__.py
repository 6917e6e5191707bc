"""The daemon on a worker host."""
