"""The `vllm:` backend."""
