"""The store's hands: blobs as files, tags and manifests in the fleet's memory."""
