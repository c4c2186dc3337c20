"""Which settings of the server serve best on this machine."""
