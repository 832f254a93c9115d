"""What follows from edits, and what stays: tests of named kinds that records bring, asked before and after."""
