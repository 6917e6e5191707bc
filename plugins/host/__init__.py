"""Runs the steps of a task, plugins among them: a process of its own under the supervisor."""
