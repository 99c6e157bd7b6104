"""Registries: the client that pulls, pushes and copies images, and a server of our own."""
