"""Card games whose state is shown as a picture of cards on a table."""
