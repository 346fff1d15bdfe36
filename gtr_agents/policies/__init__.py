"""Policies: vision-language models that act, and are scored, on written answers."""
