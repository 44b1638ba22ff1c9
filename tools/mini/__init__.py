"""The hand-written material of the `mini` suite, and the programs that make examples of it.

The material of each dataset is in `<task>_<dataset>.txt`, in a small language that `grammar` reads.
A module for each task (`sentiment`, ...) makes the examples of its datasets, of which the first is
trained on. `make` writes the suite. `cues` checks that no surface cue solves a set.
"""
