"""The sending side: files into requests."""
