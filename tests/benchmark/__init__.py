"""What log streaming costs and gives, beside the runtime's own: `python -m tests.benchmark`."""
