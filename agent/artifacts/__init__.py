"""Artifacts: found in the workspace, brought to the store, and fetched for later jobs."""
