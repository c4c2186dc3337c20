"""From the raw engine to a client: what serving costs."""
