"""Everything that touches a person's files: safe access, change sets, blobs, locks, layers and the sandbox."""
