"""Everything that a program stands on: flags, workdir, records, progress, processes."""
