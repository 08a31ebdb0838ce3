"""A real federation on this machine, for the demo, the end-to-end tests and the benchmark."""
