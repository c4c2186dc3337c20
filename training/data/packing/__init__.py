"""Faces of any dataset become a dataset folder: decoded, without duplicates, with a card."""
