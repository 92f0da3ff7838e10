"""Images as data: layers, manifests, the places they come from and go to, the cache of their blobs."""
