"""Tests against a real federation: real processes, mutual TLS, the unmodified runtime."""
