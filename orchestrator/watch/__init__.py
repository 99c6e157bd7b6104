"""The dev loop: a saved file becomes a synced file, a restart or a rebuild."""
