"""A new version into a running server: numbered versions, acceptance, model control."""
