"""Plans, reconciles and supervises Compose projects on this host."""
