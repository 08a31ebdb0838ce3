"""The components a federation loads, and what ties them to the runtime."""
