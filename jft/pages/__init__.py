"""HTML pages: the frame that all of them share, and the page about the data of a run."""
