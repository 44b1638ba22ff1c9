"""Plans: whether a run fits some devices and what it costs there, without having them."""
