"""Services to all programs: command lines, workdirs, records, progress, processes."""
