"""The `anthropic:` backend."""
