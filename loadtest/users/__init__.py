"""What locust's users record, and under which conditions."""
