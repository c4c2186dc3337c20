"""How a Triton server is started, checked and stopped on this machine.

run           the program: serve until Ctrl-C, or while a command runs
server        TritonServer, a context manager, and its options
guard         watches a running server
lock          the key without which it answers nothing but health
container     the program of Triton's container: lock and guard for the server in it
launch        ports and command line that every server has
installation  the CPU server of .venv-triton
docker        the GPU server, Triton's container; and engines built in it
versions      the Triton release and TensorRT that the container pins
log           the server's log
leftovers     what a killed server left behind
preflight     whether the server would load a repository's engines
readiness     whether a started server answers with real numbers
errors        what can go wrong before it answers
"""
