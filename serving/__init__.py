"""How a Triton server is started, checked and watched."""
