"""Files of updates: their form, their list, and which of a run's files holds its edits."""
