"""The training loop.

trainer runs epochs of step (augment, judge by losses, update by optimizer) and a validation, measured by history and
drawn by plots. state holds all that a run needs to go on; interruption, what makes it stop. compilation
and hardware are about the device.
"""
