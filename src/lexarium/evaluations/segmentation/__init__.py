"""Word segmentation: where a model, or a baseline, puts word boundaries into a stream of symbols, and how well."""
