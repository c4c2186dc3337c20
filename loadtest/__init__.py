"""Load tests: what a running server can take, as its clients see it. Stands on clients, serving and evaluation alone.

locustfile  locust's load, with this project's clients: behaviour under load; users/ has its parts
report      the report of a locust run
bench/      how much of the raw engine's speed reaches a client
sweep/      which settings of the server serve best
compare/    this server beside what people would write instead; peers/ has those
generator/  the light closed loop that bench, sweep and compare measure with
faces       the pictures that all of them send
table       measurements as CSV below their conditions
hardware    on what machine, with what server
processes   what a server takes of the cores

Never imports torch.
"""
