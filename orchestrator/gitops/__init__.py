"""Stacks that come out of a git repository: sources, mirrors, checkouts, signatures, secrets."""
