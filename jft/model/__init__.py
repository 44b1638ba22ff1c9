"""Parameters and batches to numbers: the decoder, its attention, adapters and generation."""
