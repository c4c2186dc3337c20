"""AgeGenderNet itself, what feeds it, and the file that its weights are kept in."""
