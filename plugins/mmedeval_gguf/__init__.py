"""The `gguf:` backend."""
