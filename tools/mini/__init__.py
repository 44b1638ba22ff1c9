"""The hand-written material of the `mini` suite and what turns it into rows.

`grammar` reads and fills it; a module for each task (`sentiment`, ...) makes rows from it, for its
data sets, of which the first is trained on; their material stands in `<task>_<dataset>.txt`; `cues`
holds what no set may be solvable by.
"""
