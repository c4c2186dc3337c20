"""A page to try the model on, with photos or a webcam, and the gateway that serves it and asks Triton for it."""
