"""Attributes of a service that no host of ours acts on yet; a load names those that are used.

What is known to have no meaning here, with the reason, is in `specs.unsupported`.
"""

INERT = (
    # The writable layers lie in the state directory, whose file system bounds them all together.
    "storage_opt",
)
