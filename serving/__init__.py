"""How a Triton server is started, checked and stopped on this machine.

run           the program: serve until Ctrl-C, or while a command runs
server        TritonServer, a context manager, and its options
launch        ports and command line that every server has
installation  the CPU server of .venv-triton
docker        the GPU server, Triton's container; and engines built in it
versions      the Triton release and TensorRT that the container pins
preflight     whether the server would load a repository's engines
readiness     whether a started server answers with real numbers
errors        what can go wrong before it answers
"""
