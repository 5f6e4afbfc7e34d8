"""The `openai:` backend."""
