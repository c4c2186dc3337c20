"""Where a model goes wrong: calibration, error by age, confusions, subgroups, worst faces; numbers, text, pictures."""
