"""From packed faces to the batches of a step, augmented."""
