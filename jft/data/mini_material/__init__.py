"""The hand-written material of the `mini` suite and what turns it into rows.

`grammar` reads and fills it; a module for each task (`sentiment`, ...) makes rows from it; the
material of a data set stands in `<task>_<dataset>`; `cues` holds what no set may be solvable by.
"""
