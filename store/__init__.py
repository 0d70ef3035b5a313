"""What an atlas is: its tables, its commits and its read side, without models or clusters."""
