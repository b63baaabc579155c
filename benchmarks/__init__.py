"""What this worker costs, as ratios to a bare gRPC server on the same machine; ``make bench``.

The floor (`benchmarks.floor`), the floor again and the worker take the same load in turns, round
by round; so do the worker without, without and with an archive, and few, few and many sessions in
one process.  Linux only: the processes are tied to cores, and their clocks read.
"""
