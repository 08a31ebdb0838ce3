"""The server's copy of every stream: files, and an index of what is known of them."""
