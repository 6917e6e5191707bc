"""The process that owns the tasks: starts, watches, kills. Standard library only."""
