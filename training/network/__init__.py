"""AgeGenderNet (model, with attention), its input (preprocess), its file (checkpoint), its ranks (distributed)."""
