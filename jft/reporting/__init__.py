"""The transfer report: what fine-tuning did to a model, against its base."""
