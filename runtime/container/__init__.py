"""Containers: what to run, the launcher and monitor that run it, and what became of it."""
