"""Planning: the memory, time and cost of a run on devices that are not here."""
