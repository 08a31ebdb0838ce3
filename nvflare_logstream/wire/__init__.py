"""Messages between the two sides, and the channel they travel on."""
