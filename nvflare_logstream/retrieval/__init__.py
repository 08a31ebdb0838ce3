"""Reading logs: over the store, and from afar."""
