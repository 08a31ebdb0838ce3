"""The receiving side: requests into the store, and the verdicts on it."""
