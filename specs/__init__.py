"""Compose files in, a validated and canonical project out."""
