"""What every stage agrees on: tensors, canonical face image, samples, evaluation. Imports no sibling, never torch."""
