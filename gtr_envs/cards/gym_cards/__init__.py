"""The rules of the public, archived package ``gym_cards``, quirks included, for comparison with published numbers."""
