"""Images on this host: references, content store, unpacked layers, base images."""
