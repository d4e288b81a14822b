"""Labels from the Materials Project."""
