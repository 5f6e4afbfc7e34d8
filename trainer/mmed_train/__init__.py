"""Trains the models that `mmedeval` evaluates."""
