"""Force fields and what becomes of their answers."""
