"""OCI image types: digest, descriptor, manifest and index, image config."""
