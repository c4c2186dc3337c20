"""This server beside what people would write instead."""
