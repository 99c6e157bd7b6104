"""Containers, images, builds and volumes on this host; knows nothing of Compose."""
