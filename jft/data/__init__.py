"""From rows of text to batches of prefix trees."""
