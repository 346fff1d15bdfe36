"""The free teacher inside training loops of others; each module needs its library and is imported by its own name."""
