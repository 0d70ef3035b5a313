"""What an atlas is: its tables, its commits and its read side. Knows nothing of models or clusters."""
