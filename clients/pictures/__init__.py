"""The picture files of the command line: finding them, and drawing results on copies."""
