"""Export of models as folders that other programs load, with a model card."""
