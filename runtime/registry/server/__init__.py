"""A registry server: OCI distribution 1.1 over a storage of its own."""
