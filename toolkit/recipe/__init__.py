"""The recipe: its tables; how it is read, checked, overridden and written; a signature as a table's schema."""
