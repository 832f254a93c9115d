"""Long answers: a value for each window of an answer, at the token before it."""
