"""Continued pretraining and finetuning: a recipe in, checkpoints that the harness takes out."""
